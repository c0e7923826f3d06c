package hosts

import (
	"errors"
	"net"
	"testing"
	"time"
)

func newNet(t *testing.T, n int) *Net {
	t.Helper()
	net, err := New(n)
	if errors.Is(err, ErrUnable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(net.Close)
	return net
}

// ear is a socket of a host that datagrams come to.
func ear(t *testing.T, h *Host) (conn *net.UDPConn) {
	t.Helper()
	err := h.Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(h.Address()), Port: 27000})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// arrives reports whether one of a few datagrams gets from one to another.
func arrives(t *testing.T, from, to *net.UDPConn) bool {
	t.Helper()
	var got [1]byte
	for range 5 {
		if _, err := from.WriteTo([]byte{1}, to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if err := to.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := to.Read(got[:]); err == nil {
			return true
		}
	}
	return false
}

func TestHostsHearEachOtherUnlessCut(t *testing.T) {
	net := newNet(t, 3)
	a, b, c := ear(t, net.Host(0)), ear(t, net.Host(1)), ear(t, net.Host(2))
	if !arrives(t, a, b) || !arrives(t, b, a) || !arrives(t, b, c) || !arrives(t, c, a) {
		t.Fatal("hosts that are not cut do not hear each other")
	}
	for way, want := range map[Way]struct{ in, out bool }{Both: {}, In: {out: true}, Out: {in: true}} {
		if err := net.Host(0).Cut(way); err != nil {
			t.Fatal(way, err)
		}
		if arrives(t, b, a) != want.in || arrives(t, a, b) != want.out || !arrives(t, b, c) {
			t.Errorf("cut %v: the wrong frames are lost", way)
		}
		if err := net.Heal(); err != nil {
			t.Fatal(err)
		}
	}
	if err := net.Host(0).Part(net.Host(1)); err != nil {
		t.Fatal(err)
	}
	if arrives(t, a, b) || arrives(t, b, a) || !arrives(t, a, c) {
		t.Error("parted: the wrong frames are lost")
	}
	if err := errors.Join(net.Heal(), net.Host(0).Slow("1mbit"), net.Host(0).Fast()); err != nil {
		t.Fatal(err)
	}
	if !arrives(t, a, b) {
		t.Error("healed hosts do not hear each other")
	}
}
