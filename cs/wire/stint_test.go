package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
	"pstorage/cs/wire/wiretest"
)

// pipes is a listener of connections in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (p pipes) Close() error { close(p); return nil }

func (p pipes) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

// bubble is a server under virtual time, with connections in memory: a sync takes as long as its engine says, on any machine.
type bubble struct {
	t      *testing.T
	engine *wiretest.Engine
	server *Server
	l      pipes
}

func inBubble(t *testing.T, f func(t *testing.T, b *bubble)) {
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t, engine: wiretest.New(), l: make(pipes)}
		prepared := b.engine.Prepare([]store.Preparation{{ID: testChunk, Blocks: testBlocks, Layers: []uint32{1, 2}, Epoch: 3, Version: 5, State: store.InSync}})
		if err := errors.Join(prepared...); err != nil {
			t.Fatal(err)
		}
		b.server = NewServer(ServerConfig{Engine: b.engine})
		b.server.Admit(true)
		go b.server.Serve(b.l)
		f(t, b)
		b.server.Close()
	})
}

func (b *bubble) connect() net.Conn {
	client, server := net.Pipe()
	b.l <- server
	return client
}

func (b *bubble) dial(h Hello) *Conn {
	c, err := Open(context.Background(), b.connect(), "memory", h)
	if err != nil {
		b.t.Error(err)
	}
	return c
}

// accustom makes it the connection's habit to flush each write, and ends with a flush.
func accustom(t *testing.T, c *Conn) {
	t.Helper()
	for range loneEnough + pairsEnough {
		must(t, c, writeCall(0, random(1, chunk.BlockSize)))
		must(t, c, newCall(OpFlush, 0, 0))
	}
}

// start sends a call that a gate holds.
func start(c *Conn, call *Call) collector {
	back := make(collector, 1)
	call.Done = back
	c.Send([]*Call{call})
	return back
}

func durableWrite() *Call {
	call := writeCall(0, random(2, chunk.BlockSize))
	call.Flags = FlagSync
	return call
}

func wantOK(t *testing.T, back collector) {
	t.Helper()
	if call := <-back; call.Status != OK || call.Err != nil {
		t.Errorf("%v: %v %v", call.Op, call.Status, call.Err)
	}
}

func TestAWriteIsSyncedAheadWhereAFlushFollowsEach(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c := b.dial(Hello{})
		accustom(t, c)
		g := newGate()
		b.engine.SetSlow(g.slow)
		must(t, c, writeCall(0, random(2, chunk.BlockSize)))
		synctest.Wait()
		if len(g.entered) != 1 || <-g.entered != "Flush" { // nobody has asked for it
			t.Error("no sync has begun")
		}
		flush := start(c, newCall(OpFlush, 0, 0))
		close(g.open)
		wantOK(t, flush)
		if b.server.Stats().Ahead.Load() == 0 {
			t.Error("no sync ahead was counted")
		}
		c.Close(nil)
	})
}

func TestWritesThatNoFlushFollowsAreNotSynced(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c := b.dial(Hello{})
		for range 3 {
			accustom(t, c)
			synctest.Wait()
			before := b.server.Stats().Ahead.Load()
			for range 100 {
				must(t, c, writeCall(0, random(2, chunk.BlockSize)))
			}
			synctest.Wait()
			if n := b.server.Stats().Ahead.Load() - before; n != 1 {
				t.Errorf("%d syncs for writes without a flush, want 1: that of the first", n)
			}
		}
		c.Close(nil)
	})
}

// exchange sends frames at once and waits for so many replies without data.
func exchange(t *testing.T, nc net.Conn, frames []byte, replies int) {
	t.Helper()
	if _, err := nc.Write(frames); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(nc, make([]byte, replies*ReplySize)); err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsSyncedAheadWhereRequestsOverlap(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		nc := b.connect()
		if err := exchangeHello(nc, &Hello{}); err != nil {
			t.Fatal(err)
		}
		// A flush follows each write, but the client has asked for something else, too.
		both := append(frame(1, newCall(OpPing, 0, 0)), frame(2, writeCall(0, random(1, chunk.BlockSize)))...)
		for range 100 {
			exchange(t, nc, both, 2)
			exchange(t, nc, frame(3, newCall(OpFlush, 0, 0)), 1)
		}
		synctest.Wait()
		if n := b.server.Stats().Ahead.Load(); n != 0 {
			t.Errorf("%d syncs ahead", n)
		}
		nc.Close()
	})
}

func TestASyncThatTakesLongHoldsUpNobody(t *testing.T) {
	for name, call := range map[string]*Call{"flush": newCall(OpFlush, 0, 0), "durable write": durableWrite(),
		"sync ahead": writeCall(0, random(2, chunk.BlockSize))} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, b *bubble) {
				c := b.dial(Hello{})
				accustom(t, c)
				g := newGate()
				b.engine.SetSlow(g.slow)
				back := start(c, call)
				<-g.entered
				must(t, c, newCall(OpPing, 0, 0))
				must(t, c, newCall(OpRead, 0, 4096))
				if n := b.server.Stats().Relieved.Load(); n != 1 {
					t.Errorf("relieved %d times", n)
				}
				close(g.open)
				wantOK(t, back)
				must(t, c, newCall(OpFlush, 0, 0))
				c.Close(nil)
			})
		})
	}
}

func TestASessionIsNotOverBeforeItsStints(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		old := b.dial(Hello{Client: [16]byte{1}, Session: 1})
		accustom(t, old)
		g := newGate()
		b.engine.SetSlow(g.slow)
		write := durableWrite()
		back := start(old, write)
		<-g.entered // it is being applied
		dialled := make(chan *Conn, 1)
		go func() { dialled <- b.dial(Hello{Client: [16]byte{1}, Session: 2}) }()
		time.Sleep(10 * stintTick)
		synctest.Wait()
		if <-back; !errors.Is(write.Err, ErrConn) {
			t.Errorf("the old session's write: %v", write.Err)
		}
		if len(dialled) > 0 {
			t.Error("the new session was opened while a write of the old one was being applied")
		}
		close(g.open)
		c := <-dialled
		must(t, c, newCall(OpPing, 0, 0))
		c.Close(nil)
	})
}

func TestAServerIsNotClosedBeforeStintsHaveEnded(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		c := b.dial(Hello{})
		accustom(t, c)
		g := newGate()
		b.engine.SetSlow(g.slow)
		must(t, c, writeCall(0, random(1, 4096)))
		<-g.entered // it is synced ahead
		closed := make(chan struct{})
		go func() { b.server.Close(); close(closed) }()
		time.Sleep(10 * stintTick)
		synctest.Wait()
		select {
		case <-closed:
			t.Error("the server is closed while its engine is in use")
		default:
		}
		close(g.open)
		<-closed
	})
}

// TestSyncsOfAnyLengthLoseNoRequest has goroutines relieved at every place: syncs end before, with and after the guard's ticks.
func TestSyncsOfAnyLengthLoseNoRequest(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		var syncs atomic.Int64
		b.engine.SetSlow(func(string) {
			if n := syncs.Add(1); n%20 == 0 {
				time.Sleep(time.Duration(n/20%7) * 3 * time.Millisecond) // at most 18 ms; after 10 somebody is relieved
			}
		})
		c := b.dial(Hello{})
		for i := range uint64(5000) {
			data := random(i, chunk.BlockSize)
			write := writeCall(uint32(i%testBlocks)*chunk.BlockSize, data)
			if i%100 < 10 {
				write.Flags = FlagSync
			}
			must(t, c, write)
			if i%100 < 90 {
				must(t, c, newCall(OpFlush, 0, 0))
			}
			if read := must(t, c, newCall(OpRead, write.Offset, chunk.BlockSize)); !bytes.Equal(read.Dst, data) {
				t.Fatalf("write %d is not read back", i)
			}
		}
		if st := b.server.Stats(); st.Relieved.Load() == 0 || st.Ahead.Load() == 0 {
			t.Errorf("relieved %d times, %d syncs ahead: not what this is about", st.Relieved.Load(), st.Ahead.Load())
		}
		c.Close(nil)
	})
}
