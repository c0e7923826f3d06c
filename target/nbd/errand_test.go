package nbd

import (
	"context"
	"encoding/binary"
	"reflect"
	"sync"
	"testing"

	"pstorage/blockstore/block"
)

// witness is a device that notes what it is asked for.
type witness struct {
	block.Device
	mu    sync.Mutex
	asked []asked
}

type asked struct {
	op             block.Op
	flags          block.Flags
	offset, length int64
}

func (w *witness) Submit(batch []*block.Request) {
	w.mu.Lock()
	for _, r := range batch {
		w.asked = append(w.asked, asked{r.Op, r.Flags, r.Offset, r.Length})
	}
	w.mu.Unlock()
	w.Device.Submit(batch)
}

func (w *witness) take() []asked {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.asked
	w.asked = nil
	return out
}

var extendedTerms = terms{structured: true, extended: true}

// wantNone reads an extended reply without a payload.
func (p *peer) wantNone(h header) {
	p.t.Helper()
	b := p.read(extendedSize)
	if kind := binary.BigEndian.Uint16(b[6:]); kind != replyTypeNone || binary.BigEndian.Uint64(b[8:]) != h.cookie {
		p.t.Fatalf("reply %x to %+v", b, h)
	}
}

// TestLongRangesReachTheDeviceInParts: a device may cut what it is given into pieces, all at once.
func TestLongRangesReachTheDeviceInParts(t *testing.T) {
	const size = 10<<30 + 512
	w := &witness{Device: block.NewMemory(size)}
	_, path := start(t, newShelf().add("demo", w, false), Limits{})
	p := connectWith(t, path, "demo", extendedTerms)
	for cmd, want := range map[uint16]asked{
		cmdTrim:        {op: block.Discard, flags: block.FUA},
		cmdWriteZeroes: {op: block.WriteZeroes, flags: block.FUA},
	} {
		h := header{cmd: cmd, flags: cmdFlagFUA, cookie: 7, length: size}
		p.write(encodeExtended(h, nil))
		p.wantNone(h)
		var parts []asked
		for _, length := range []int64{4 << 30, 4 << 30, 2<<30 + 512} {
			want.length = length
			parts = append(parts, want)
			want.offset += length
		}
		if got := w.take(); !reflect.DeepEqual(got, parts) {
			t.Errorf("command %d: %+v, want %+v", cmd, got, parts)
		}
	}
}

func TestErrorInAPartIsTheRequests(t *testing.T) {
	g := newGate(block.NewMemory(10 << 30))
	_, path := start(t, newShelf().add("demo", g, false), Limits{})
	p := connectWith(t, path, "demo", extendedTerms)
	p.write(encodeExtended(header{cmd: cmdTrim, cookie: 7, length: 10 << 30}, nil))
	g.await(1)
	g.finish(g.take(false), nil)
	g.await(1)
	g.release(block.ErrNoSpace)
	b := p.read(extendedSize)
	if kind := binary.BigEndian.Uint16(b[6:]); kind != replyTypeError {
		t.Fatalf("%x", b)
	}
	if code := binary.BigEndian.Uint32(p.read(int(binary.BigEndian.Uint64(b[24:])))); errno(code) != nbdENOSPC {
		t.Errorf("error %d", code)
	}
}

// hollow is a device that is one hole, whatever it is asked about.
type hollow struct{ block.Device }

func (hollow) Extents(_ context.Context, offset, length int64, _ int) ([]block.Extent, error) {
	return []block.Extent{{Offset: offset, Length: length, Zero: true}}, nil
}

// TestStatusBeyond32Bits: one answer tells of more than compact headers can, and of no more than the device can look at in short.
func TestStatusBeyond32Bits(t *testing.T) {
	const size = maxStatus + 4096
	_, path := start(t, newShelf().add("demo", hollow{block.NewMemory(size)}, false), Limits{})
	p := connectWith(t, path, "demo", extendedTerms)
	for _, flags := range []uint16{0, cmdFlagReqOne} {
		for asked, want := range map[uint64]uint64{5 << 30: 5 << 30, size: maxStatus} {
			p.write(encodeExtended(header{cmd: cmdBlockStatus, flags: flags, length: asked}, nil))
			b := p.read(extendedSize + 8 + 16)[extendedSize:]
			if n, state := binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:]); n != want || state != stateHole|stateZero {
				t.Errorf("status %x of %d bytes, want %d of %d", state, n, want, asked)
			}
		}
	}
}

func TestCacheReadsTheBeginning(t *testing.T) {
	w := &witness{Device: block.NewMemory(1 << 30)}
	_, path := start(t, newShelf().add("demo", w, false), Limits{})
	p := connect(t, path, "demo", false)
	for length, want := range map[uint64]int{512: 1, 3 << 20: 3, 3<<20 + 512: 4, 1 << 30: maxCache / cachePart} {
		p.request(header{cmd: cmdCache, cookie: 4, length: length}, nil)
		p.wantSimple(nbdOK, 4)
		next := int64(0)
		got := w.take()
		for _, r := range got {
			if r.op != block.Read || r.offset != next {
				t.Fatalf("cache of %d bytes: %+v", length, got)
			}
			next += r.length
		}
		if len(got) != want || next != int64(min(length, maxCache)) {
			t.Errorf("cache of %d bytes: %d reads of %d bytes", length, len(got), next)
		}
	}
}

// TestNothingIsCachedForAClientThatIsGone: many large requests, then a disconnect, must not keep the device busy.
func TestNothingIsCachedForAClientThatIsGone(t *testing.T) {
	w := &witness{Device: block.NewMemory(1 << 30)}
	g := newGate(w)
	s := newShelf().add("demo", g, false)
	server, path := start(t, s, Limits{})
	p := connect(t, path, "demo", false)
	for range 100 {
		p.request(header{cmd: cmdCache, length: 1 << 30}, nil)
	}
	g.await(1)
	p.Close()
	await(t, "the server sees the end", func() bool {
		server.mu.Lock()
		defer server.mu.Unlock()
		for c := range server.conns {
			return c.ending.Load()
		}
		return false
	})
	g.release(nil)
	<-s.closed
	if got := w.take(); len(got) != 1 {
		t.Errorf("%d reads for a client that is gone", len(got))
	}
}
