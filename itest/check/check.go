// Package check writes to a volume and knows what must be read back, also after crashes.
//
// # DESIGN
//
// Every write gets a number; each sector of it says which sector it is and which write it came from. For each sector the
// checker knows the last acknowledged content and, while a request is in flight or was cut off, the one that may have
// taken its place. What is read must be one of the two, sector by sector. No two requests in flight touch one sector.
//
// Goroutines: the caller's runs the workload; completions come in on the client's and are handed over by a channel.
package check

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"

	"pstorage/itest/nbd"
)

const (
	// Sector is the unit of the model.
	Sector = 512
	// none: nothing else may be there.
	none = ^uint32(0)
	// zero is the number of the write that left zeros.
	zero = 0
)

// ErrWrong: what was read is neither what was acknowledged nor what was in flight.
var ErrWrong = errors.New("wrong data")

// Volume is the model of a volume's first sectors.
type Volume struct {
	Depth   int // requests in flight
	MaxSize int // bytes of the largest request
	// Trims says that some requests discard or zero.
	Trims bool
	// Cuts says that the power may fail: what was not flushed may then be gone.
	Cuts bool

	random *rand.Rand
	now    []uint32 // last acknowledged write of each sector
	next   []uint32 // the one in flight or cut off; none: no such
	busy   []bool   // a request in flight touches it
	write  uint32   // number of the last write
	Writes int      // acknowledged
	Bytes  int64    // written and acknowledged

	older    map[int64][]replaced // with Cuts: what each sector may fall back to
	sequence int                  // of acknowledgements
}

// New models a volume's first bytes, which must be zeros now.
func New(bytes int64, seed uint64) *Volume {
	v := &Volume{Depth: 16, MaxSize: 256 << 10, Trims: true, random: rand.New(rand.NewPCG(seed, 1))}
	v.now, v.next, v.busy = make([]uint32, bytes/Sector), make([]uint32, bytes/Sector), make([]bool, bytes/Sector)
	for i := range v.next {
		v.next[i] = none
	}
	return v
}

// Clone models a volume that begins as this one is now. Nothing is in flight. What either is written after is in no place the same.
func (v *Volume) Clone(seed uint64) *Volume {
	c := New(int64(len(v.now))*Sector, seed)
	copy(c.now, v.now)
	copy(c.next, v.next)
	c.write = v.write + cloned*uint32(seed)
	return c
}

// cloned is more writes than a volume gets.
const cloned = 1 << 24

// fill makes one sector's content.
func fill(sector []byte, index int64, write uint32) {
	if write == zero {
		clear(sector)
		return
	}
	x := uint64(index)*0x9e3779b97f4a7c15 ^ uint64(write)
	binary.LittleEndian.PutUint64(sector, uint64(index))
	binary.LittleEndian.PutUint64(sector[8:], uint64(write))
	for i := 16; i < Sector; i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(sector[i:], x)
	}
}

// request is what the checker keeps of one in flight.
type request struct {
	first, count int64
	flushes      int // of a flush: the acknowledgements before it was sent, which it makes durable
}

// Run sends requests until stop is closed or as many as given have been sent, then waits for all of them. The error is the first
// of a request, or ErrWrong.
func (v *Volume) Run(c *nbd.Client, requests int, stop <-chan struct{}) error {
	completed := make(chan *nbd.Op, v.Depth)
	var first error
	inFlight, sent := 0, 0
	stopped := func() bool {
		select {
		case <-stop:
			return true
		default:
			return false
		}
	}
	for {
		for first == nil && inFlight < v.Depth && sent < requests && !stopped() {
			op := v.draw()
			c.Submit(op, func(op *nbd.Op) { completed <- op })
			inFlight, sent = inFlight+1, sent+1
		}
		if inFlight == 0 {
			return first
		}
		op := <-completed
		inFlight--
		if err := v.finish(op); err != nil && first == nil {
			first = err
		}
	}
}

// draw chooses a request that touches nothing that is in flight.
func (v *Volume) draw() *nbd.Op {
	for {
		count := int64(1 + v.random.IntN(v.MaxSize/Sector))
		if v.random.IntN(2) == 0 {
			count = 8 * (1 + count/8) // as file systems do
		}
		first := v.random.Int64N(int64(len(v.now)))
		if v.random.IntN(2) == 0 {
			first &^= 7
		}
		if count = min(count, int64(len(v.now))-first); v.free(first, count) {
			return v.choose(request{first: first, count: count})
		}
	}
}

func (v *Volume) free(first, count int64) bool {
	for i := first; i < first+count; i++ {
		if v.busy[i] || v.next[i] != none {
			return false
		}
	}
	return true
}

// choose makes the request a read, a write or one that leaves zeros.
func (v *Volume) choose(r request) *nbd.Op {
	op := &nbd.Op{Offset: r.first * Sector, Length: uint32(r.count * Sector)}
	switch dice := v.random.IntN(100); {
	case dice < 30:
		op.Command, op.Data = nbd.CmdRead, make([]byte, op.Length)
		v.claim(r, none)
	case dice < 34:
		*op, r.count, r.flushes = nbd.Op{Command: nbd.CmdFlush}, 0, v.sequence
	case dice < 44 && v.Trims:
		op.Command = nbd.CmdTrim
		if dice < 39 {
			op.Command = nbd.CmdWriteZeroes
		}
		v.claim(r, zero)
	default:
		v.write++
		op.Command, op.Data = nbd.CmdWrite, make([]byte, op.Length)
		for i := range r.count {
			fill(op.Data[i*Sector:(i+1)*Sector], r.first+i, v.write)
		}
		v.claim(r, v.write)
	}
	op.Owner = r
	return op
}

// claim marks the sectors of a request in flight, and what it may leave there.
func (v *Volume) claim(r request, write uint32) {
	for i := r.first; i < r.first+r.count; i++ {
		v.busy[i], v.next[i] = true, write
	}
}

// finish takes a completed request into the model. What failed stays as something that may be there.
func (v *Volume) finish(op *nbd.Op) error {
	r := op.Owner.(request)
	for i := r.first; i < r.first+r.count; i++ {
		v.busy[i] = false
	}
	if op.Err != nil {
		return op.Err
	}
	switch op.Command {
	case nbd.CmdFlush:
		v.flushed(r.flushes)
		return nil
	case nbd.CmdRead:
		return v.compare(op.Data, r.first)
	}
	v.sequence++
	for i := r.first; i < r.first+r.count; i++ {
		v.replace(i)
		v.now[i], v.next[i] = v.next[i], none
	}
	v.Writes++
	v.Bytes += r.count * Sector
	return nil
}

// compare checks what was read from sector first on.
func (v *Volume) compare(data []byte, first int64) error {
	return v.compareWith(data, first, v.allowed)
}

// compareWith checks it against what allowed lists for a sector.
func (v *Volume) compareWith(data []byte, first int64, allowed func(int64) []uint32) error {
	for i := range int64(len(data)) / Sector {
		got, sector := data[i*Sector:(i+1)*Sector], first+i
		if _, ok := which(got, sector, allowed(sector)); !ok {
			return fmt.Errorf("%w in sector %d (byte %d): acknowledged is write %d, cut off %d, allowed %d, found write %d of sector %d, beginning % x", ErrWrong, sector, sector*Sector,
				v.now[sector], int32(v.next[sector]), allowed(sector), binary.LittleEndian.Uint64(got[8:]), binary.LittleEndian.Uint64(got), got[:32])
		}
	}
	return nil
}

// allowed are the writes one of which a sector must hold.
func (v *Volume) allowed(sector int64) []uint32 {
	if v.next[sector] == none {
		return v.now[sector : sector+1]
	}
	return []uint32{v.now[sector], v.next[sector]}
}

// which finds the write that left a sector as it is.
func which(got []byte, sector int64, writes []uint32) (write uint32, ok bool) {
	var want [Sector]byte
	for _, write := range writes {
		if fill(want[:], sector, write); string(got) == string(want[:]) {
			return write, true
		}
	}
	return 0, false
}

// verifySize is how much Verify reads at once.
const verifySize = 1 << 20

// Verify reads everything twice: what is found must be allowed, and must not change from one reading to the next. What was
// cut off is known afterwards.
func (v *Volume) Verify(c *nbd.Client) error { return v.verify(c, v.allowed) }

func (v *Volume) verify(c *nbd.Client, allowed func(int64) []uint32) error {
	total := int64(len(v.now)) * Sector
	first, second := make([]byte, verifySize), make([]byte, verifySize)
	for at := int64(0); at < total; at += verifySize {
		n := min(verifySize, total-at)
		for _, data := range [][]byte{first[:n], second[:n]} {
			if err := c.Read(data, at); err != nil {
				return err
			}
			if err := v.compareWith(data, at/Sector, allowed); err != nil {
				return err
			}
		}
		if string(first[:n]) != string(second[:n]) {
			return fmt.Errorf("%w: reading twice at %d gave different bytes", ErrWrong, at)
		}
		v.adopt(first[:n], at/Sector, allowed)
	}
	return nil
}

// adopt takes what was found as what is there.
func (v *Volume) adopt(data []byte, first int64, allowed func(int64) []uint32) {
	for i := range int64(len(data)) / Sector {
		sector := first + i
		if candidates := allowed(sector); len(candidates) > 1 {
			v.now[sector], _ = which(data[i*Sector:(i+1)*Sector], sector, candidates)
		}
		v.next[sector] = none
	}
}
