package wire

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"path/filepath"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
	"pstorage/cs/wire/wiretest"
)

const testBlocks = 512

var testChunk = chunk.ID{File: 1025, Index: 7}

// fixture is a server with one replica and a way to dial it.
type fixture struct {
	t      *testing.T
	engine *wiretest.Engine
	server *Server
	addr   string
	plain  bool // connections show no file descriptor
}

// plainConn hides the connection's file descriptor, as one that encrypts does.
type plainConn struct{ net.Conn }

type plainListener struct{ net.Listener }

func (l plainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return plainConn{c}, err
}

func newFixture(t *testing.T, change func(*ServerConfig)) *fixture {
	return newFixtureOn(t, "tcp", change)
}

func newFixtureOn(t *testing.T, network string, change func(*ServerConfig)) *fixture {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	plain := network == "plain"
	if plain {
		network = "tcp"
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, engine: wiretest.New(), addr: l.Addr().String()}
	if network == "unix" {
		f.addr = unixPrefix + f.addr
	}
	f.prepare(store.Preparation{ID: testChunk, Blocks: testBlocks, Layers: []uint32{1, 2}, Epoch: 3, Version: 5, State: store.InSync})
	cfg := ServerConfig{Engine: f.engine, Server: 1025}
	if change != nil {
		change(&cfg)
	}
	f.server = NewServer(cfg)
	f.server.Admit(true)
	if f.plain = plain; plain {
		l = plainListener{l}
	}
	served := make(chan error, 1)
	go func() { served <- f.server.Serve(l) }()
	t.Cleanup(func() {
		f.server.Close()
		if err := <-served; !errors.Is(err, ErrClosed) {
			t.Errorf("Serve returned %v", err)
		}
	})
	return f
}

func (f *fixture) prepare(p store.Preparation) {
	f.t.Helper()
	if err := errors.Join(f.engine.Prepare([]store.Preparation{p})...); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) dial(h Hello) *Conn {
	f.t.Helper()
	dial := Dial
	if f.plain {
		dial = dialPlain
	}
	c, err := dial(context.Background(), f.addr, h)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close(nil) })
	return c
}

// collector takes calls back one by one.
type collector chan *Call

func (c collector) CompleteCalls(batch []*Call) {
	for _, call := range batch {
		c <- call
	}
}

func newCall(op Op, off, length uint32) *Call {
	c := &Call{Op: op, Chunk: testChunk, Layer: 2, Epoch: 3, Version: 5, Offset: off, Length: length}
	if op == OpRead || op == OpReadLayer {
		c.Dst = bytes.Repeat([]byte{0xee}, int(length))
	}
	return c
}

func writeCall(off uint32, data []byte) *Call {
	c := newCall(OpWrite, off, uint32(len(data)))
	c.Data = data
	for rest := data; len(rest) > 0; {
		n := min(len(rest), chunk.BlockSize-int(off%chunk.BlockSize))
		c.Sums = append(c.Sums, chunk.BlockSum(testChunk, off/chunk.BlockSize, rest[:n]))
		off, rest = off+uint32(n), rest[n:]
	}
	return c
}

// do sends calls together and waits for all.
func do(c *Conn, calls ...*Call) {
	back := make(collector, len(calls))
	for _, call := range calls {
		call.Done = back
	}
	c.Send(calls)
	for range calls {
		<-back
	}
}

// must does one call and wants it to work.
func must(t *testing.T, c *Conn, call *Call) *Call {
	t.Helper()
	do(c, call)
	if call.Err != nil || call.Status != OK {
		t.Fatalf("%v: %v, %v", call.Op, call.Status, call.Err)
	}
	return call
}

func random(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func dialPlain(ctx context.Context, addr string, h Hello) (*Conn, error) {
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	return Open(ctx, plainConn{nc}, addr, h)
}
