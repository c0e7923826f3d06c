package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"testing"

	"pstorage/blockstore/block"
)

// TestDisconnectWithRequestsInTheDevice: their memory stays theirs, and the device is closed when it has given all back.
func TestDisconnectWithRequestsInTheDevice(t *testing.T) {
	g := newGate(block.NewMemory(1 << 20))
	s := newShelf().add("demo", g, false)
	_, path := start(t, s, Limits{})
	p := connect(t, path, "demo", false)
	data := bytes.Repeat([]byte{7}, 96<<10)
	p.request(header{cmd: cmdWrite, offset: 0, length: 4096}, data[:4096])
	p.request(header{cmd: cmdWrite, offset: 4096, length: 96 << 10}, data)
	p.request(header{cmd: cmdRead, offset: 0, length: 4096}, nil)
	p.request(header{cmd: cmdRead, offset: 0, length: 128 << 10}, nil)
	g.await(4)
	p.write(encodeRequest(header{cmd: cmdWrite, length: 128 << 10}, data[:100])) // and one that never comes whole
	p.Close()

	other := connect(t, path, "demo", false) // uses memory of its own
	other.request(header{cmd: cmdWrite, offset: 512 << 10, length: 96 << 10}, bytes.Repeat([]byte{9}, 96<<10))
	g.await(1)
	select {
	case <-s.closed:
		t.Fatal("device closed with requests in it")
	default:
	}
	held := g.take(false)
	if !bytes.Equal(held[1].Data, data) || !bytes.Equal(held[0].Data, data[:4096]) {
		t.Fatal("payload overwritten before the device completed it")
	}
	g.finish(held, nil)
	<-s.closed
	other.wantSimple(nbdOK, 0)
}

func TestDisconnectInThePayload(t *testing.T) {
	s := demo(t)
	_, path := start(t, s, Limits{})
	for _, n := range []int{0, 1, 511, 70 << 10} {
		p := connect(t, path, "demo", false)
		p.write(encodeRequest(header{cmd: cmdWrite, length: 80 << 10}, make([]byte, n)))
		p.Close()
		<-s.closed
	}
}

func TestSoftDisconnectAnswersWhatWasAsked(t *testing.T) {
	g := newGate(block.NewMemory(1 << 20))
	_, path := start(t, newShelf().add("demo", g, false), Limits{})
	p := connect(t, path, "demo", false)
	p.request(header{cmd: cmdRead, cookie: 3, length: 512}, nil)
	p.request(header{cmd: cmdDisc}, nil)
	g.await(1)
	g.release(nil)
	p.wantSimple(nbdOK, 3)
	p.read(512)
	p.wantEnd()
}

func TestSoftDisconnectAnswersQuestionsForStatus(t *testing.T) {
	_, path := start(t, demo(t), Limits{})
	for range 20 {
		p := connect(t, path, "demo", true)
		status := encodeRequest(header{cmd: cmdBlockStatus, cookie: 3, length: 4096}, nil)
		p.write(append(status, encodeRequest(header{cmd: cmdDisc}, nil)...))
		if b := p.read(structuredSize + 4 + 8); binary.BigEndian.Uint16(b[6:]) != replyTypeBlockStatus {
			t.Fatalf("%x", b)
		}
		p.wantEnd()
	}
}

func TestShutdownAnswersWhatIsInFlight(t *testing.T) {
	g := newGate(block.NewMemory(1 << 20))
	server, path := start(t, newShelf().add("demo", g, false), Limits{})
	p := connect(t, path, "demo", false)
	idle := dial(t, path)
	idle.read(18)
	p.request(header{cmd: cmdRead, cookie: 3, length: 512}, nil)
	g.await(1)
	done := make(chan error, 1)
	go func() { done <- server.Shutdown(context.Background()) }()
	idle.wantEnd()
	g.release(nil)
	p.wantSimple(nbdOK, 3)
	p.read(512)
	p.wantEnd()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("still listening")
	}
}

func TestShutdownDoesNotWaitForEver(t *testing.T) {
	g := newGate(block.NewMemory(1 << 20))
	server, path := start(t, newShelf().add("demo", g, false), Limits{})
	p := connect(t, path, "demo", false)
	p.request(header{cmd: cmdRead, cookie: 3, length: 512}, nil)
	g.await(1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := server.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Error("shutdown with a request that hangs in the device:", err)
	}
	p.wantEnd()
	g.release(nil)
}
