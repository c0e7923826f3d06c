package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"

	"testing"
	"time"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
)

// rawDial opens a session by hand.
func (f *fixture) rawDial(h Hello) net.Conn {
	f.t.Helper()
	nc, err := net.Dial("tcp", f.addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { nc.Close() })
	if err := exchangeHello(nc, &h); err != nil {
		f.t.Fatal(err)
	}
	return nc
}

// frame encodes a call as it would be sent.
func frame(id uint64, call *Call) []byte {
	s := slot{call: call}
	s.encode(id)
	return append(append(s.head, call.Data...), call.Body...)
}

func TestNothingIsServedBeforeAdmission(t *testing.T) {
	f := newFixture(t, nil)
	f.server.Admit(false)
	c := f.dial(Hello{})
	for _, call := range []*Call{newCall(OpRead, 0, 4096), writeCall(0, random(1, 4096)), newCall(OpFence, 0, 0)} {
		if do(c, call); call.Status != NotAdmitted {
			t.Errorf("%v: %v", call.Op, call.Status)
		}
	}
	must(t, c, newCall(OpPing, 0, 0))
	f.server.Admit(true)
	must(t, c, newCall(OpRead, 0, 4096))
}

func TestMalformedRequestsEndTheConnection(t *testing.T) {
	f := newFixture(t, nil)
	damaged := frame(1, newCall(OpPing, 0, 0))
	damaged[9] ^= 1
	huge := make([]byte, RequestSize)
	(&request{op: OpWrite, payload: MaxPayload + 1}).put(huge)
	sums := make([]byte, RequestSize)
	(&request{op: OpWrite, sums: 3, payload: 11}).put(sums)
	for name, b := range map[string][]byte{"damaged": damaged, "huge": huge, "sums beyond the payload": sums,
		"noise": bytes.Repeat([]byte("GET / HTTP/1.1\r\n"), 20)} {
		t.Run(name, func(t *testing.T) {
			nc := f.rawDial(Hello{Peer: true}) // peers do not replace each other
			good := frame(5, newCall(OpPing, 0, 0))
			if _, err := nc.Write(append(good, b...)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, nc); err != nil && !isReset(err) {
				t.Errorf("%v", err)
			}
		})
	}
	must(t, f.dial(Hello{}), newCall(OpPing, 0, 0))
}

// isReset: the server closed with bytes of ours unread.
func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op)
}

func TestAConnectionWithoutHelloIsClosed(t *testing.T) {
	f := newFixture(t, nil)
	for _, b := range [][]byte{frame(1, newCall(OpPing, 0, 0)), bytes.Repeat([]byte{'x'}, 200)} {
		nc, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Write(append(b, make([]byte, helloSize)...)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, nc); err != nil && !isReset(err) {
			t.Errorf("%v", err)
		}
		nc.Close()
	}
}

func TestConnectionsBeyondTheLimitAreClosed(t *testing.T) {
	f := newFixture(t, func(c *ServerConfig) { c.MaxConns = 2 })
	f.dial(Hello{Client: [16]byte{1}})
	f.dial(Hello{Client: [16]byte{2}})
	if _, err := Dial(context.Background(), f.addr, Hello{Client: [16]byte{3}}); !errors.Is(err, ErrConn) {
		t.Errorf("%v", err)
	}
}

// gate lets a test hold workers in the engine.
type gate struct {
	entered chan string
	open    chan struct{}
}

func newGate() *gate { return &gate{entered: make(chan string, 1000), open: make(chan struct{})} }

func (g *gate) slow(method string) {
	g.entered <- method
	<-g.open
}

func TestANewSessionWaitsUntilNothingOfTheOldOneIsBeingApplied(t *testing.T) {
	f := newFixture(t, nil)
	g := newGate()
	f.engine.SetSlow(g.slow)
	old := f.dial(Hello{Client: [16]byte{1}, Session: 1})
	write := writeCall(0, random(1, 4096))
	write.Flags = FlagSync // goes to a worker
	write.Done = make(collector, 1)
	old.Send([]*Call{write})
	<-g.entered // it is being applied
	dialled := make(chan *Conn, 1)
	go func() {
		c, err := Dial(context.Background(), f.addr, Hello{Client: [16]byte{1}, Session: 2})
		if err != nil {
			t.Error(err)
		}
		dialled <- c
	}()
	<-old.Closed() // the server has ended the old session
	<-write.Done.(collector)
	if !errors.Is(write.Err, ErrConn) {
		t.Errorf("the old session's write: %v", write.Err)
	}
	select {
	case <-dialled:
		t.Fatal("the new session was opened while a write of the old one was being applied")
	default:
	}
	close(g.open)
	c := <-dialled
	if c == nil {
		t.FailNow()
	}
	defer c.Close(nil)
	must(t, c, newCall(OpPing, 0, 0))
}

func TestAnOlderSessionIsRefused(t *testing.T) {
	f := newFixture(t, nil)
	id := [16]byte{1}
	live := f.dial(Hello{Client: id, Incarnation: 2, Session: 5})
	for _, h := range []Hello{{Incarnation: 2, Session: 4}, {Incarnation: 1, Session: 9}, {Incarnation: 2, Session: 5}} {
		h.Client = id
		if _, err := Dial(context.Background(), f.addr, h); !errors.Is(err, ErrRefused) {
			t.Errorf("%d.%d: %v", h.Incarnation, h.Session, err)
		}
	}
	must(t, live, newCall(OpPing, 0, 0))
	must(t, f.dial(Hello{Client: [16]byte{2}, Session: 1}), newCall(OpPing, 0, 0))
	must(t, f.dial(Hello{Client: id, Incarnation: 3, Session: 1}), newCall(OpPing, 0, 0))
	<-live.Closed()
}

func TestAClientThatDoesNotReadIsNotServed(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial(Hello{Client: [16]byte{1}})
	must(t, c, writeCall(0, random(1, MaxData)))
	nc := f.rawDial(Hello{Client: [16]byte{2}})
	request := frame(1, newCall(OpRead, 0, 128<<10))
	// Requests for 4 GiB of replies: were they all served, or even read, this would go through.
	sent := 0
	for {
		if err := nc.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, err := nc.Write(bytes.Repeat(request, 1024))
		sent += n
		if err != nil {
			break
		}
		if sent > 256<<20 {
			t.Fatal("the server goes on reading requests whose replies nobody takes")
		}
	}
	served := f.server.Stats().Ops[OpRead].Load()
	if limit := uint64(sent / len(request)); served >= limit {
		t.Errorf("served %d reads, all of %d", served, limit)
	}
	must(t, c, newCall(OpRead, 0, 4096)) // the others are
}

func TestRepliesOfWorkersDoNotPileUp(t *testing.T) {
	f := newFixture(t, nil)
	f.engine.SetBlock(true) // every read goes to a worker
	c := f.dial(Hello{Client: [16]byte{1}})
	must(t, c, writeCall(0, random(1, MaxData)))
	nc := f.rawDial(Hello{Client: [16]byte{2}})
	all := bytes.Repeat(frame(1, newCall(OpRead, 0, MaxData)), 200)
	if _, err := nc.Write(all); err != nil {
		t.Fatal(err)
	}
	must(t, c, newCall(OpRead, 0, 4096))
	f.server.mu.Lock()
	for sc := range f.server.conns {
		sc.mu.Lock()
		if sc.held > maxHeld+MaxPayload || sc.jobs > maxJobs {
			t.Errorf("%d bytes, %d jobs in hand", sc.held, sc.jobs)
		}
		sc.mu.Unlock()
	}
	f.server.mu.Unlock()
	got, want := 0, 200*(ReplySize+MaxData/chunk.BlockSize*4+MaxData)
	buf := make([]byte, 1<<20)
	for got < want {
		n, err := nc.Read(buf)
		if got += n; err != nil {
			t.Fatalf("%v after %d of %d bytes", err, got, want)
		}
	}
}

func TestReadsThatWouldBlockDoNotHoldUpOthers(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial(Hello{})
	must(t, c, writeCall(0, random(1, 8192)))
	g := newGate()
	f.engine.SetSlow(g.slow)
	f.engine.SetBlock(true)
	read := newCall(OpRead, 0, 4096)
	read.Done = make(collector, 1)
	c.Send([]*Call{read})
	<-g.entered
	must(t, c, newCall(OpPing, 0, 0))
	must(t, c, writeCall(4096, random(2, 4096)))
	close(g.open)
	<-read.Done.(collector)
	if read.Status != OK || read.Err != nil {
		t.Errorf("%v %v", read.Status, read.Err)
	}
}

func TestNothingIsAppliedAfterClose(t *testing.T) {
	f := newFixture(t, nil)
	g := newGate()
	f.engine.SetSlow(g.slow)
	c := f.dial(Hello{})
	var calls []*Call
	back := make(collector, 2*DefaultMaxWorkers)
	for range 2 * DefaultMaxWorkers { // more than there are workers
		call := newCall(OpFlush, 0, 0)
		call.Done = back
		calls = append(calls, call)
	}
	c.Send(calls)
	for range DefaultMaxWorkers {
		<-g.entered
	}
	closed := make(chan struct{})
	go func() { f.server.Close(); close(closed) }()
	for range calls {
		<-back
	}
	select {
	case <-closed:
		t.Error("closed while flushes were being applied")
	default:
	}
	close(g.open)
	<-closed
	if n := len(g.entered); n > 0 {
		t.Errorf("%d more calls of the engine", n)
	}
}

func TestSteadyReadsAndWritesAllocateNothing(t *testing.T) {
	e := newBenchEngine()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(ServerConfig{Engine: e})
	s.Admit(true)
	go s.Serve(l)
	defer s.Close()
	c, err := Dial(context.Background(), l.Addr().String(), Hello{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(nil)
	back := make(collector, 16)
	for _, op := range []Op{OpRead, OpWrite} {
		calls := benchCalls(op, cap(back), 4096, back)
		round := func() {
			c.Send(calls)
			for range calls {
				if call := <-back; call.Err != nil || call.Status != OK {
					t.Fatalf("%v %v", call.Status, call.Err)
				}
			}
		}
		seeds := testing.AllocsPerRun(100, func() {
			for range calls {
				chunk.BlockSum(testChunk, 1, e.block)
			}
		})
		// A block's sum is made once for each read and write here.
		if n := testing.AllocsPerRun(200, round); n-seeds > 1 {
			t.Errorf("%v: %v allocations for %d calls", op, n, len(calls))
		}
	}
}

// FuzzServer feeds a session with frames whose headers verify, but say anything, and with noise.
func FuzzServer(f *testing.F) {
	f.Add(byte(OpRead), byte(0), uint16(0), uint32(0), uint32(4096), uint32(0), []byte{})
	f.Add(byte(OpWrite), byte(1), uint16(1), uint32(0), uint32(4096), uint32(4100), make([]byte, 4100))
	f.Add(byte(OpAtomic), byte(0), uint16(2), uint32(4096), uint32(8192), uint32(8), make([]byte, 8))
	f.Add(byte(OpTable), byte(0), uint16(0), uint32(0), uint32(1<<31), uint32(0), []byte{})
	f.Add(byte(OpRaise), byte(0), uint16(0), uint32(0), uint32(0), uint32(4), []byte{1, 2, 3, 4})
	f.Add(byte(OpZero), byte(2), uint16(0), uint32(1<<32-1), uint32(1<<32-1), uint32(0), []byte("noise"))
	f.Fuzz(func(t *testing.T, op, flags byte, sums uint16, off, length, payload uint32, tail []byte) {
		fx := newFixture(t, nil)
		nc := fx.rawDial(Hello{})
		b := make([]byte, RequestSize)
		(&request{op: Op(op), flags: flags, sums: sums, id: 1, chunk: testChunk, layer: 2, epoch: 3, version: 5, offset: off,
			length: length, payload: payload}).put(b)
		if _, err := nc.Write(append(b, tail...)); err == nil {
			_ = nc.(*net.TCPConn).CloseWrite()
		}
		_, _ = io.Copy(io.Discard, nc)
		must(t, fx.dial(Hello{Client: [16]byte{9}}), newCall(OpPing, 0, 0))
	})
}

// FuzzClient answers a read with anything.
func FuzzClient(f *testing.F) {
	f.Add(byte(OpRead), byte(OK), uint16(2), uint64(1<<32), uint32(8+4096), make([]byte, 8+4096))
	f.Add(byte(OpRead), byte(Corrupt), uint16(0), uint64(1<<32), uint32(0), []byte{})
	f.Fuzz(func(t *testing.T, op, status byte, sums uint16, id uint64, payload uint32, tail []byte) {
		c, server := playedServer(t)
		call := newCall(OpRead, 0, 8192)
		call.Done = make(collector, 1)
		c.Send([]*Call{call})
		b := make([]byte, ReplySize)
		(&reply{op: Op(op), status: Status(status), sums: sums, id: id, payload: payload}).put(b)
		_, _ = server.Write(append(b, tail...))
		server.Close()
		<-call.Done.(collector)
	})
}

var _ store.Engine = (*benchEngine)(nil)
