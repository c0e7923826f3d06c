package nbd

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"pstorage/blockstore/block"
)

func TestSlowNegotiationIsEnded(t *testing.T) {
	_, path := start(t, demo(t), Limits{Negotiation: 30 * time.Millisecond})
	for _, part := range [][]byte{nil, {0, 0}, append([]byte{0, 0, 0, 3}, encodeOption(optGo, infoFor("demo"))[:20]...)} {
		p := dial(t, path)
		p.read(18)
		_, _ = p.Write(part) // it may have been ended already
		p.wantEnd()
	}
}

func TestOldestNegotiationGivesWay(t *testing.T) {
	_, path := start(t, demo(t), Limits{Negotiating: 2})
	idle := [3]*peer{}
	for i := range idle {
		idle[i] = dial(t, path)
		idle[i].read(18)
	}
	idle[0].wantEnd()
	connect(t, path, "demo", false).alive() // takes the place of idle[1]
	idle[1].wantEnd()
	idle[2].write([]byte{0, 0, 0, 3})
	idle[2].option(optAbort, nil)
	idle[2].wantReply(optAbort, repAck)
}

func TestOneConnectionTooManyIsClosed(t *testing.T) {
	server, path := start(t, demo(t), Limits{Connections: 1})
	first := connect(t, path, "demo", false)
	dial(t, path).wantEnd()
	first.alive()
	first.Close()
	await(t, "the first connection ends", func() bool {
		server.mu.Lock()
		defer server.mu.Unlock()
		return server.open == 0
	})
	connect(t, path, "demo", false).alive()
}

func TestEndlessOptionsAreEnded(t *testing.T) {
	_, path := start(t, demo(t), Limits{})
	p := dial(t, path)
	p.greet(flagFixedNewstyle)
	go io.Copy(io.Discard, p.Conn)
	many := bytes.Repeat(encodeOption(999, nil), 1000)
	var err error
	for range maxOptions/1000 + 1000 {
		if _, err = p.Write(many); err != nil {
			break
		}
	}
	if err == nil || isTimeout(err) {
		t.Fatal("the server took a million options:", err)
	}
}

func TestLongOptionIsSkipped(t *testing.T) {
	_, path := start(t, demo(t), Limits{})
	p := dial(t, path)
	p.greet(flagFixedNewstyle)
	p.option(optGo, make([]byte, maxOptionData+1))
	p.wantReply(optGo, repErrTooBig)
	p.option(optGo, infoFor(string(bytes.Repeat([]byte("x"), maxString+1))))
	p.wantReply(optGo, repErrInvalid)
	p.option(optGo, infoFor("de\xffmo"))
	p.wantReply(optGo, repErrInvalid)
	p.option(optGo, infoFor("demo"))
	p.wantReply(optGo, repInfo)
	p.wantReply(optGo, repAck)
	p.alive()
}

func TestHugeOptionEndsTheConnection(t *testing.T) {
	_, path := start(t, demo(t), Limits{})
	p := dial(t, path)
	p.greet(flagFixedNewstyle)
	p.write(encodeOption(optGo, nil)[:12])
	p.write([]byte{0xff, 0xff, 0xff, 0xff})
	p.wantEnd()
}

func TestVolumeThatCannotBeOpenedIsRefusedWithTheReason(t *testing.T) {
	s := demo(t)
	_, path := start(t, s, Limits{})
	s.refuse = errors.New("in use by host b")
	p := dial(t, path)
	p.greet(flagFixedNewstyle)
	p.option(optGo, infoFor("demo"))
	if text := string(p.wantReply(optGo, repErrUnknown)); text != `volume "demo": in use by host b` {
		t.Error(text)
	}
	p.option(optAbort, nil)
	p.wantReply(optAbort, repAck)
}

func TestDisconnectRightAfterExportName(t *testing.T) {
	s := demo(t)
	_, path := start(t, s, Limits{})
	for range 20 {
		p := dial(t, path)
		p.greet(flagFixedNewstyle)
		p.option(optExportName, []byte("demo"))
		p.Close()
		<-s.closed
	}
	connect(t, path, "demo", false).alive()
}

// TestClientThatNeverReadsIsNotReadFrom: what it makes the server hold is bounded, and others are served.
func TestClientThatNeverReadsIsNotReadFrom(t *testing.T) {
	server, path := start(t, demo(t), Limits{})
	for _, size := range []uint64{512, 128 << 10} {
		p := connect(t, path, "demo", false)
		go func() { // ends when the peer is closed
			many := bytes.Repeat(encodeRequest(header{cmd: cmdRead, length: size}, nil), 1000)
			for {
				if _, err := p.Write(many); err != nil {
					return
				}
			}
		}()
		await(t, "the connection stops being read from", func() bool { return waiting(server) })
		held := heldBy(server)
		if held > defaultConnectionBytes {
			t.Errorf("%d bytes held for a client that never reads", held)
		}
		other := connect(t, path, "demo", false)
		other.alive()
		other.Close()
		p.Close()
		await(t, "the connections end", func() bool { return heldBy(server) == 0 })
	}
}

// waiting says that some connection's sender is stalled and its receiver waits because of that.
func waiting(s *Server) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.mu.Lock()
		full := len(c.queue) > maxQueue
		c.mu.Unlock()
		c.account.mu.Lock()
		full = full || c.account.held+int64(classSize(classOf(carveSize))) > c.account.limit
		c.account.mu.Unlock()
		if full && c.sendStalled.Load() != 0 {
			return true
		}
	}
	return false
}

func heldBy(s *Server) (held int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.account.mu.Lock()
		held += c.account.held
		c.account.mu.Unlock()
	}
	return held
}

// TestStuckClientGivesWayWhenMemoryIsShort: it holds all there is; another's large request gets it closed.
func TestStuckClientGivesWayWhenMemoryIsShort(t *testing.T) {
	s := newShelf().add("demo", block.NewMemory(64<<20), false)
	server, path := start(t, s, Limits{TotalBytes: 1, Stuck: time.Millisecond})
	stuck := connect(t, path, "demo", false)
	stuck.request(header{cmd: cmdRead, length: block.MaxTransfer}, nil)
	await(t, "the reply stalls", func() bool {
		server.mu.Lock()
		defer server.mu.Unlock()
		for c := range server.conns {
			return c.sendStalled.Load() != 0
		}
		return false
	})
	p := connect(t, path, "demo", false)
	p.alive512()
	p.request(header{cmd: cmdRead, cookie: 5, length: block.MaxTransfer}, nil)
	p.wantSimple(nbdOK, 5)
	p.read(block.MaxTransfer)
}

// alive512 is alive for a volume of zeros.
func (p *peer) alive512() {
	p.t.Helper()
	p.request(header{cmd: cmdRead, cookie: 1, length: 512}, nil)
	p.wantSimple(nbdOK, 1)
	p.read(512)
}
