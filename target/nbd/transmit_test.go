package nbd

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"pstorage/blockstore/block"
)

func TestErrorsOfTheDeviceReachTheClient(t *testing.T) {
	for _, c := range []struct {
		err  error
		code errno
	}{
		{block.ErrNoSpace, nbdENOSPC}, {block.ErrReadOnly, nbdEPERM}, {block.ErrCorrupt, nbdEIO}, {block.ErrUnavailable, nbdEIO},
		{block.ErrLostLease, nbdESHUTDOWN}, {fmt.Errorf("chunk 3: %w", block.ErrNoSpace), nbdENOSPC}, {net.ErrClosed, nbdEIO},
	} {
		g := newGate(block.NewMemory(1 << 20))
		_, path := start(t, newShelf().add("demo", g, false), Limits{})
		p := connect(t, path, "demo", false)
		p.request(header{cmd: cmdWrite, cookie: 9, length: 512}, make([]byte, 512))
		g.await(1)
		g.release(c.err)
		p.wantSimple(c.code, 9)
		p.alive()
	}
}

func TestStructuredErrorsNameNoPartOfTheCluster(t *testing.T) {
	g := newGate(block.NewMemory(1 << 20))
	_, path := start(t, newShelf().add("demo", g, false), Limits{})
	p := connect(t, path, "demo", true)
	p.request(header{cmd: cmdRead, cookie: 9, length: 512}, nil)
	g.await(1)
	g.release(fmt.Errorf("chunk server 1025 at 10.1.1.1: %w", block.ErrUnavailable))
	b := p.read(structuredSize)
	text := string(p.read(int(binary.BigEndian.Uint32(b[16:])))[6:])
	if text != block.ErrUnavailable.Error() {
		t.Errorf("message %q", text)
	}
}

func TestPayloadOverTheMaximumIsSkipped(t *testing.T) {
	_, path := start(t, demo(t), Limits{})
	p := connect(t, path, "demo", false)
	length := uint64(block.MaxTransfer + 512)
	p.request(header{cmd: cmdWrite, cookie: 1, length: length}, make([]byte, length))
	p.wantSimple(nbdEINVAL, 1)
	p.alive()
}

func TestLargestRequestsWork(t *testing.T) {
	s := newShelf().add("demo", block.NewMemory(64<<20), false)
	_, path := start(t, s, Limits{ConnectionBytes: 1, TotalBytes: 1}) // raised to the least that works
	p := connect(t, path, "demo", false)
	data := make([]byte, block.MaxTransfer)
	for i := range data {
		data[i] = byte(i >> 8)
	}
	for cookie := range uint64(3) {
		p.request(header{cmd: cmdWrite, cookie: cookie, offset: 1 << 20, length: block.MaxTransfer}, data)
		p.wantSimple(nbdOK, cookie)
		p.request(header{cmd: cmdRead, cookie: cookie, offset: 1 << 20, length: block.MaxTransfer}, nil)
		p.wantSimple(nbdOK, cookie)
		if !bytes.Equal(p.read(len(data)), data) {
			t.Fatal("read differs from what was written")
		}
	}
}

// TestEveryRequestIsAnsweredOnce sends a mix of requests in pieces of any length, while the device completes what it has
// in any order from other goroutines, and checks what is read against what was written.
func TestEveryRequestIsAnsweredOnce(t *testing.T) {
	for _, terms := range []terms{{}, {structured: true}, {structured: true, extended: true}} {
		t.Run(fmt.Sprintf("structured=%v,extended=%v", terms.structured, terms.extended), func(t *testing.T) {
			g := newGate(block.NewMemory(64 << 20))
			_, path := start(t, newShelf().add("demo", g, false), Limits{Requests: 24})
			stop := completeAtRandom(g)
			defer stop()
			mixedLoad(t, connectWith(t, path, "demo", terms), terms)
		})
	}
}

// completeAtRandom completes what comes, late and shuffled, until it is stopped; then nothing is kept any more.
func completeAtRandom(g *gate) (stop func()) {
	quit := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-g.arrive:
					g.finish(g.take(true), nil)
				case <-quit:
					return
				}
			}
		})
	}
	return func() {
		close(quit)
		wg.Wait()
		g.release(nil)
	}
}

const (
	mixSlots    = 32
	mixSlotSize = 1 << 20
	mixRequests = 3000
)

// mixedLoad gives each slot of the volume one request at a time: writes of known bytes, then reads of them.
func mixedLoad(t *testing.T, p *peer, terms terms) {
	free := make(chan uint64, mixSlots)
	var slots [mixSlots]header
	for i := range slots {
		free <- uint64(i)
	}
	sent := make(chan error, 1)
	go func() { sent <- sendMix(p, terms, &slots, free) }()
	for range mixRequests {
		slot := readMix(t, p, &slots, terms)
		free <- slot
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func sendMix(p *peer, terms terms, slots *[mixSlots]header, free chan uint64) error {
	var buf []byte
	for k := range mixRequests {
		i := <-free
		h := &slots[i]
		h.cookie = i
		if h.cmd == cmdWrite && h.length > 0 {
			h.cmd = cmdRead // of what was written before
		} else {
			h.cmd, h.offset, h.length = cmdWrite, i*mixSlotSize+512*rand.Uint64N(8), 512*(1+rand.Uint64N(16))
			if k%16 == 0 {
				h.length = 512 * (1 + rand.Uint64N(700))
			}
		}
		var data []byte
		if h.cmd == cmdWrite {
			data = bytes.Repeat([]byte{mixByte(*h)}, int(h.length))
		}
		buf = append(buf, terms.encode(*h, data)...)
		for len(buf) > 0 && (rand.Uint32N(4) == 0 || len(free) == 0 || k == mixRequests-1) {
			n := 1 + rand.IntN(len(buf))
			if len(free) == 0 || k == mixRequests-1 {
				n = len(buf)
			}
			if _, err := p.Write(buf[:n]); err != nil {
				return err
			}
			buf = buf[n:]
		}
	}
	return nil
}

func mixByte(h header) byte { return byte(h.offset/512*7 + h.length/512) }

func readMix(t *testing.T, p *peer, slots *[mixSlots]header, terms terms) uint64 {
	t.Helper()
	b := p.read(simpleSize)
	cookie := binary.BigEndian.Uint64(b[8:])
	if cookie >= mixSlots {
		t.Fatalf("cookie %d", cookie)
	}
	h := slots[cookie]
	if magic := binary.BigEndian.Uint32(b); terms.extended {
		wantExtended(t, p, b, &h)
	} else if terms.structured && h.cmd == cmdRead {
		rest := p.read(12)
		if magic != magicStructured || uint64(binary.BigEndian.Uint32(rest)) != h.length+8 || binary.BigEndian.Uint64(rest[4:]) != h.offset {
			t.Fatalf("reply %x%x to %+v", b, rest, h)
		}
	} else if magic != magicSimple || binary.BigEndian.Uint32(b[4:]) != 0 {
		t.Fatalf("reply %x to %+v", b, h)
	}
	if h.cmd == cmdRead {
		if got := p.read(int(h.length)); !bytes.Equal(got, bytes.Repeat([]byte{mixByte(h)}, len(got))) {
			t.Fatalf("read %+v got other bytes than were written", h)
		}
	}
	return cookie
}

// wantExtended reads the rest of a reply that begins with b, up to the data, and checks it against the request.
func wantExtended(t *testing.T, p *peer, b []byte, h *header) {
	t.Helper()
	kind, length := uint16(replyTypeNone), uint64(0)
	if h.cmd == cmdRead {
		kind, length = replyTypeOffsetData, h.length+offsetSize
	}
	want := binary.BigEndian.AppendUint32(nil, magicExtendedReply)
	want = binary.BigEndian.AppendUint16(want, replyFlagDone)
	want = binary.BigEndian.AppendUint16(want, kind)
	want = binary.BigEndian.AppendUint64(want, h.cookie)
	want = binary.BigEndian.AppendUint64(want, h.offset)
	want = binary.BigEndian.AppendUint64(want, length)
	if h.cmd == cmdRead {
		want = binary.BigEndian.AppendUint64(want, h.offset)
	}
	if b = append(b, p.read(len(want)-len(b))...); !bytes.Equal(b, want) {
		t.Fatalf("reply %x to %+v", b, *h)
	}
}

func TestRepliesOfOneBatchLieSideBySide(t *testing.T) {
	l := newReel(nil)
	c := reelConn(t, l, block.NewMemory(1<<20), terms{})
	var in []byte
	for i := range uint64(8) {
		in = append(in, encodeRequest(header{cmd: cmdRead, cookie: i, length: 4096}, nil)...)
		in = append(in, encodeRequest(header{cmd: cmdFlush, cookie: i}, nil)...)
	}
	l.frames = [][]byte{in}
	if err := c.serve(); err != nil {
		t.Fatal(err)
	}
	if l.writes != 1 || l.pieces != 1 {
		t.Errorf("%d writes of %d pieces for one batch", l.writes, l.pieces)
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("not with the race detector")
	}
	for _, terms := range []terms{{}, {structured: true, extended: true}} {
		for _, size := range []uint64{4096, 128 << 10} {
			for _, cmd := range []uint16{cmdRead, cmdWrite} {
				if n := allocationsPerTurn(t, terms, cmd, size); n > 0 {
					t.Errorf("%+v, command %d of %d bytes: %v allocations a turn", terms, cmd, size, n)
				}
			}
		}
	}
}

func allocationsPerTurn(t *testing.T, terms terms, cmd uint16, size uint64) float64 {
	var in []byte
	for i := range uint64(32) {
		var data []byte
		if cmd == cmdWrite {
			data = make([]byte, size)
		}
		in = append(in, terms.encode(header{cmd: cmd, cookie: i, offset: i * 128 << 10, length: size}, data)...)
	}
	l := newReel(nil)
	l.repeat = in
	c := reelConn(t, l, block.NewMemory(8<<20), terms)
	if err := c.begin(); err != nil {
		t.Fatal(err)
	}
	defer c.dropReceived()
	round := func() {
		if err := c.turn(); err != nil {
			t.Fatal(err)
		}
	}
	for range 200 {
		round()
	}
	return testing.AllocsPerRun(200, round)
}
