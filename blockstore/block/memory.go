package block

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
)

const (
	// unitSize is the range that one lock covers at a time and one map entry describes.
	unitSize  = 64 << 10
	unitPages = unitSize / Size
	// stripes is how many locks there are: unit n belongs to stripe n%stripes.
	stripes = 256
)

// Memory is a sparse device in memory, for tests and for measuring front ends. It completes every request within Submit, with
// one call per completer.
//
// A request holds the locks of all units it touches, taken in the order of their stripes, so requests that overlap take
// effect one after the other as a whole.
type Memory struct {
	size    atomic.Int64
	closed  atomic.Bool
	stripes [stripes]stripe
}

type page [Size]byte

// unit is the pages of one range of unitSize bytes; nil ones are holes.
type unit [unitPages]*page

type stripe struct {
	sync.RWMutex
	units map[int64]*unit
	_     [32]byte // neighbours' locks on other cache lines
}

// NewMemory returns an empty device.
func NewMemory(size int64) *Memory {
	m := &Memory{}
	m.size.Store(size)
	for i := range m.stripes {
		m.stripes[i].units = map[int64]*unit{}
	}
	return m
}

// Size implements Device.
func (m *Memory) Size() int64 { return m.size.Load() }

// Grow sets a larger size.
func (m *Memory) Grow(size int64) {
	for old := m.size.Load(); size > old && !m.size.CompareAndSwap(old, size); old = m.size.Load() {
	}
}

// AtomicWrites implements AtomicWriter: a write holds its locks as a whole, and nothing is left after a failure.
func (m *Memory) AtomicWrites() Atomicity {
	return Atomicity{Most: 1 << 20, Granularity: Size, Within: 1 << 20}
}

// Close implements Device. The contents are given up.
func (m *Memory) Close() error {
	m.closed.Store(true)
	return nil
}

// Submit implements Device.
func (m *Memory) Submit(batch []*Request) {
	for _, r := range batch {
		if m.closed.Load() {
			r.Err = ErrClosed
		} else if r.Err = Check(r, m.size.Load()); r.Err == nil && r.Op != Flush && r.Length > 0 {
			m.apply(r)
		}
	}
	CompleteAll(batch)
}

func (m *Memory) apply(r *Request) {
	first, last := r.Offset/unitSize, (r.Offset+r.Length-1)/unitSize
	if r.Op == Read {
		m.each(first, last, (*stripe).RLock)
		defer m.each(first, last, (*stripe).RUnlock)
	} else {
		m.each(first, last, (*stripe).Lock)
		defer m.each(first, last, (*stripe).Unlock)
	}
	switch r.Op {
	case Read:
		m.read(r.Data, r.Offset)
	case Write:
		m.write(r.Data, r.Offset)
	case WriteZeroes, Discard:
		m.zero(r.Offset, r.Length, r.Flags&NoUnmap == 0)
	case CompareAndWrite:
		m.compareAndWrite(r)
	}
}

// each calls f on the stripes of units first to last, in the order of the stripes.
func (m *Memory) each(first, last int64, f func(*stripe)) {
	if last-first >= stripes-1 {
		for i := range m.stripes {
			f(&m.stripes[i])
		}
		return
	}
	a, b := first%stripes, last%stripes
	if a > b { // the range wraps around
		for i := range b + 1 {
			f(&m.stripes[i])
		}
		b = stripes - 1
	}
	for i := a; i <= b; i++ {
		f(&m.stripes[i])
	}
}

// find returns the page that holds offset, nil if it is a hole.
func (m *Memory) find(offset int64) *page {
	n := offset / unitSize
	if u := m.stripes[n%stripes].units[n]; u != nil {
		return u[offset%unitSize/Size]
	}
	return nil
}

func (m *Memory) make(offset int64) *page {
	n := offset / unitSize
	units := m.stripes[n%stripes].units
	u := units[n]
	if u == nil {
		u = new(unit)
		units[n] = u
	}
	p := &u[offset%unitSize/Size]
	if *p == nil {
		*p = new(page)
	}
	return *p
}

func (m *Memory) read(dst []byte, offset int64) {
	for len(dst) > 0 {
		n := min(Size-int(offset%Size), len(dst))
		if p := m.find(offset); p != nil {
			copy(dst[:n], p[offset%Size:])
		} else {
			clear(dst[:n])
		}
		dst, offset = dst[n:], offset+int64(n)
	}
}

func (m *Memory) write(src []byte, offset int64) {
	for len(src) > 0 {
		n := copy(m.make(offset)[offset%Size:], src)
		src, offset = src[n:], offset+int64(n)
	}
}

// zero visits only units that exist, so that a huge range costs what is in it.
func (m *Memory) zero(offset, length int64, unmap bool) {
	for end := offset + length; offset < end; {
		n := offset / unitSize
		next := min((n+1)*unitSize, end)
		if s := &m.stripes[n%stripes]; s.units[n] != nil {
			s.units[n].zero(int(offset%unitSize), int(next-offset), unmap)
			if *s.units[n] == (unit{}) {
				delete(s.units, n)
			}
		}
		offset = next
	}
}

func (u *unit) zero(from, length int, unmap bool) {
	for end := from + length; from < end; {
		next := min((from/Size+1)*Size, end)
		p := &u[from/Size]
		if unmap && next-from == Size {
			*p = nil
		} else if *p != nil {
			clear((*p)[from%Size:][:next-from])
		}
		from = next
	}
}

func (m *Memory) compareAndWrite(r *Request) {
	var hole page
	for at := 0; at < len(r.Compare); {
		offset := r.Offset + int64(at)
		p := m.find(offset)
		if p == nil {
			p = &hole
		}
		have := p[offset%Size:]
		want := r.Compare[at:min(at+len(have), len(r.Compare))]
		if have = have[:len(want)]; !bytes.Equal(have, want) {
			r.Miscompare = at + Mismatch(have, want)
			r.Err = fmt.Errorf("at %d: %w", r.Offset+int64(r.Miscompare), ErrMiscompare)
			return
		}
		at += len(want)
	}
	m.write(r.Data, r.Offset)
}

// Mismatch returns the index of the first byte that differs, or the shorter length.
func Mismatch(a, b []byte) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// Extents implements Device, page by page, skipping what does not exist.
func (m *Memory) Extents(ctx context.Context, offset, length int64, most int) ([]Extent, error) {
	length = min(length, m.Size()-offset)
	if offset < 0 || length <= 0 || most < 1 {
		return nil, fmt.Errorf("extents of %d bytes at %d: %w", length, offset, ErrRange)
	}
	var out []Extent
	for end := offset + length; offset < end; {
		next, data := m.extent(offset)
		next = min(next, end)
		e := Extent{Offset: offset, Length: next - offset, Allocated: data, Zero: !data}
		if k := len(out) - 1; k >= 0 && out[k].Zero == e.Zero {
			out[k].Length += e.Length
		} else if len(out) == most {
			return out, nil
		} else {
			out = append(out, e)
		}
		if offset = next; ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return out, nil
}

// extent tells where the page or hole at offset ends, and which it is.
func (m *Memory) extent(offset int64) (next int64, data bool) {
	n := offset / unitSize
	s := &m.stripes[n%stripes]
	s.RLock()
	defer s.RUnlock()
	u := s.units[n]
	if u == nil {
		return (n + 1) * unitSize, false
	}
	return (offset/Size + 1) * Size, u[offset%unitSize/Size] != nil
}
