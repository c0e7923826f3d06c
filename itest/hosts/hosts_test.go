package hosts

import (
	"encoding/binary"
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
	return earAt(t, h, h.Address())
}

func earAt(t *testing.T, h *Host, address string) (conn *net.UDPConn) {
	t.Helper()
	err := h.Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(address), Port: 27000})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// datagrams is how many there were, over all tests.
var datagrams uint64

// arrives reports whether datagrams get from one to another, as is expected: one that must come is waited for, however busy the
// machine is (a card that was just plugged in may take a second).
func arrives(t *testing.T, from, to *net.UDPConn, expected bool) bool {
	t.Helper()
	tries := 5
	if expected {
		tries = 100
	}
	first := datagrams + 1
	for range tries {
		datagrams++
		if _, err := from.WriteTo(binary.BigEndian.AppendUint64(nil, datagrams), to.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if heard(t, to, first) {
			return true
		}
	}
	return false
}

// heard reports whether a datagram comes soon, not counting those of earlier questions.
func heard(t *testing.T, to *net.UDPConn, first uint64) bool {
	t.Helper()
	var got [8]byte
	if err := to.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := to.Read(got[:]); err != nil {
			return false
		}
		if binary.BigEndian.Uint64(got[:]) >= first {
			return true
		}
	}
}

func TestHostsHearEachOtherUnlessCut(t *testing.T) {
	net := newNet(t, 3)
	a, b, c := ear(t, net.Host(0)), ear(t, net.Host(1)), ear(t, net.Host(2))
	if !arrives(t, a, b, true) || !arrives(t, b, a, true) || !arrives(t, b, c, true) || !arrives(t, c, a, true) {
		t.Fatal("hosts that are not cut do not hear each other")
	}
	for way, want := range map[Way]struct{ in, out bool }{Both: {}, In: {out: true}, Out: {in: true}} {
		if err := net.Host(0).Cut(way); err != nil {
			t.Fatal(way, err)
		}
		if arrives(t, b, a, want.in) != want.in || arrives(t, a, b, want.out) != want.out || !arrives(t, b, c, true) {
			t.Errorf("cut %v: the wrong frames are lost", way)
		}
		if err := net.Heal(); err != nil {
			t.Fatal(err)
		}
	}
	if err := net.Host(0).Part(net.Host(1)); err != nil {
		t.Fatal(err)
	}
	if arrives(t, a, b, false) || arrives(t, b, a, false) || !arrives(t, a, c, true) {
		t.Error("parted: the wrong frames are lost")
	}
	if err := errors.Join(net.Heal(), net.Host(0).Slow("1mbit"), net.Host(0).Fast()); err != nil {
		t.Fatal(err)
	}
	if !arrives(t, a, b, true) {
		t.Error("healed hosts do not hear each other")
	}
}

func TestOneAddressOfAHostIsCutAndNotTheOther(t *testing.T) {
	net := newNet(t, 2)
	const alias = "10.77.0.201"
	if err := net.Host(0).Alias(alias); err != nil {
		t.Fatal(err)
	}
	first, second, other := ear(t, net.Host(0)), earAt(t, net.Host(0), alias), ear(t, net.Host(1))
	if !arrives(t, other, second, true) || !arrives(t, second, other, true) {
		t.Fatal("the further address is not heard")
	}
	if err := net.CutAddress(alias); err != nil {
		t.Fatal(err)
	}
	if arrives(t, other, second, false) || arrives(t, second, other, false) || !arrives(t, other, first, true) || !arrives(t, first, other, true) {
		t.Error("the wrong packets are lost")
	}
	if err := net.Heal(); err != nil {
		t.Fatal(err)
	}
	if !arrives(t, other, second, true) {
		t.Error("a healed address is not heard")
	}
}
