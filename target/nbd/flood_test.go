package nbd

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"pstorage/blockstore/block"
)

// TestDisconnectWithRepliesNeverRead: clients that queue reads, take no reply and drop, again and again.
func TestDisconnectWithRepliesNeverRead(t *testing.T) {
	s := demo(t)
	server, path := start(t, s, Limits{})
	honest := connect(t, path, "demo", false)
	for _, terms := range []terms{{}, {structured: true}, extendedTerms} {
		many := bytes.Repeat(append(terms.encode(header{cmd: cmdRead, length: 64 << 10}, nil), terms.encode(header{cmd: cmdCache, length: 512}, nil)...), 300)
		for range 7 {
			p := connectWith(t, path, "demo", terms)
			sent := make(chan struct{})
			go func() { // ends when the peer is closed
				defer close(sent)
				_, _ = p.Write(many)
			}()
			await(t, "replies stall", func() bool { return stalled(server) })
			p.Close()
			<-sent
			<-s.closed
			honest.alive()
		}
	}
}

// stalled says that some connection's client takes no replies.
func stalled(s *Server) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if c.sendStalled.Load() != 0 {
			return true
		}
	}
	return false
}

// TestOptionsWhoseRepliesAreNeverRead: the server waits for its time, and holds one option's replies meanwhile.
func TestOptionsWhoseRepliesAreNeverRead(t *testing.T) {
	s := newShelf()
	for i := range 1000 {
		s.add(fmt.Sprintf("volume-%d-%0100d", i, i), block.NewMemory(512), false)
	}
	_, path := start(t, s, Limits{Negotiation: 100 * time.Millisecond})
	p := dial(t, path)
	_, _ = p.Write([]byte{0, 0, 0, 3}) // its time may be over already
	many := bytes.Repeat(encodeOption(optList, nil), 1000)
	for {
		if _, err := p.Write(many); err != nil {
			if isTimeout(err) {
				t.Fatal("the server waits for ever")
			}
			return
		}
	}
}

// TestFloodOfOverlappingWrites: every one is answered, no sector is a mixture, and another client is served meanwhile.
func TestFloodOfOverlappingWrites(t *testing.T) {
	s := newShelf().add("demo", block.NewMemory(1<<20), false)
	_, path := start(t, s, Limits{})
	const writers, each, length = 4, 500, 16 << 10
	var flood sync.WaitGroup
	for w := range writers {
		p := connect(t, path, "demo", false)
		flood.Go(func() {
			if _, err := io.CopyN(io.Discard, p, each*simpleSize); err != nil {
				t.Error("replies:", err)
			}
		})
		flood.Go(func() {
			data := bytes.Repeat([]byte{byte(1 + w)}, length)
			for i := range uint64(each) {
				if _, err := p.Write(encodeRequest(header{cmd: cmdWrite, cookie: i, offset: 512 * (i % 16), length: length}, data)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	honest := connect(t, path, "demo", false)
	for range 100 {
		honest.request(header{cmd: cmdRead, cookie: 9, offset: 512 << 10, length: 512}, nil)
		honest.wantSimple(nbdOK, 9)
		honest.read(512)
	}
	flood.Wait()
	honest.request(header{cmd: cmdRead, cookie: 9, length: length + 15*512}, nil)
	honest.wantSimple(nbdOK, 9)
	for i, sector := 0, honest.read(length+15*512); len(sector) > 0; i, sector = i+1, sector[512:] {
		if b := sector[0]; b < 1 || b > writers || !bytes.Equal(sector[:512], bytes.Repeat([]byte{b}, 512)) {
			t.Fatalf("sector %d is a mixture", i)
		}
	}
}

// TestDisconnectAnywhere cuts a session after each of its bytes.
func TestDisconnectAnywhere(t *testing.T) {
	for _, terms := range []terms{{}, extendedTerms} {
		session := []byte{0, 0, 0, 3}
		if terms.extended {
			session = append(session, encodeOption(optExtendedHeaders, nil)...)
			session = append(session, encodeOption(optSetMetaContext, queriesFor("demo", contextAllocation))...)
		}
		session = append(session, encodeOption(optGo, infoFor("demo", infoBlockSize))...)
		session = append(session, terms.encode(header{cmd: cmdWrite, length: 512}, make([]byte, 512))...)
		session = append(session, terms.encode(header{cmd: cmdBlockStatus, length: 4096}, nil)...)
		session = append(session, terms.encode(header{cmd: cmdRead, length: 4096}, nil)...)
		s := demo(t)
		server, path := start(t, s, Limits{})
		for n := range session {
			c, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write(session[:n]) // the server may have ended it, as the beginning of something else
			c.Close()
		}
		connect(t, path, "demo", false).alive()
		await(t, "all but that one end", func() bool {
			server.mu.Lock()
			defer server.mu.Unlock()
			return server.open == 1
		})
	}
}

// TestGrownVolume: a new connection is told of the size, and one that was there before can use it.
func TestGrownVolume(t *testing.T) {
	m := block.NewMemory(1 << 20)
	_, path := start(t, newShelf().add("demo", m, false), Limits{})
	old := connect(t, path, "demo", false)
	old.request(header{cmd: cmdRead, cookie: 1, offset: 1 << 20, length: 512}, nil)
	old.wantSimple(nbdEINVAL, 1)
	m.Grow(2 << 20)
	old.request(header{cmd: cmdRead, cookie: 2, offset: 1 << 20, length: 512}, nil)
	old.wantSimple(nbdOK, 2)
	old.read(512)
	p := dial(t, path)
	p.greet(flagFixedNewstyle | flagNoZeroes)
	p.option(optExportName, []byte("demo"))
	if b := p.read(10); !bytes.Equal(b[:8], []byte{0, 0, 0, 0, 0, 0x20, 0, 0}) {
		t.Errorf("size %x", b[:8])
	}
}
