package sim

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/anishathalye/porcupine"
)

// A history is what clients asked of volumes and what they were told. It is checked sector by sector: a sector is a register, and what was
// read must have an order in which every read returns the last write before it (linearizability). A write that failed, or was never answered, may
// have happened at any time after it was asked for, or not at all.
//
// Lost power adds to that. Values written since a flush began that has succeeded are volatile. Where all replicas of a chunk that could have
// had them lost power (losses.go says when that is so), the sector goes back to any one of them, or to the one before them. A flush that
// succeeds says that this has not happened to what its own process had written; one that fails because it has happened takes the promise back (R9loss).

//
// What a snapshot shows is a read at some moment while it was taken, and is flushed then (R11).

type kind uint8

const (
	read kind = iota
	write
	flush
	loss
	told   // a flush that failed since writes were lost
	frozen // what a snapshot shows
)

// sector names a sector of a volume.
type sector struct {
	volume int
	number int64
}

// op is one request. ids are the values, by sector; one for all of them where they are all the same.
type op struct {
	kind    kind
	client  int
	process int // of all clients'
	volume  int
	first   int64 // sector
	count   int64
	ids     []uint64
	durable bool  // a write that is flushed with it
	atomic  bool  // a write that takes effect as a whole
	call    int64 // clock
	ret     int64 // 0: no success
}

type history struct {
	mu    sync.Mutex
	clock int64
	ids   uint64
	ops   []*op
}

// begin notes that a request is made. A write gets its value.
func (h *history) begin(o *op) *op {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	o.call = h.clock
	if o.kind == write && o.ids == nil {
		h.ids++
		o.ids = []uint64{h.ids}
	}
	h.ops = append(h.ops, o)
	return o
}

// end notes that it has succeeded.
func (h *history) end(o *op) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	o.ret = h.clock
}

// endTold notes that a flush has failed since writes were lost. It reports whether any could be.
func (h *history) endTold(o *op) bool {
	h.end(o)
	h.mu.Lock()
	defer h.mu.Unlock()
	o.kind = told
	return slices.ContainsFunc(h.ops, func(l *op) bool { return l.kind == loss && l.volume == o.volume })
}

// tick is the time now, and never again.
func (h *history) tick() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	return h.clock
}

// lose notes that all replicas of a range have lost what was volatile, at some moment since begun.
func (h *history) lose(volume int, first, count, begun int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	h.ops = append(h.ops, &op{kind: loss, client: -1, volume: volume, first: first, count: count, call: begun, ret: h.clock})
}

// size counts the requests that have succeeded.
func (h *history) size() (reads, writes int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.ops {
		switch {
		case o.ret == 0:
		case o.kind == read:
			reads++
		case o.kind == write:
			writes++
		}
	}
	return reads, writes
}

func (o *op) id(sector int64) uint64 {
	if len(o.ids) == 1 {
		return o.ids[0]
	}
	return o.ids[sector-o.first]
}

// input and output are those of the register's model.
type input struct {
	kind    kind
	id      uint64
	durable bool
	process int // 0: that of a write which has not succeeded
}

// register is a sector's state: the values it may have now, and those that it goes back to when power is lost, both sorted; the last value
// written, and whose flush vouches for it, if anybody's.
type register struct {
	now, volatile, last string
	process             int
}

const zero = "\x00"

// value is one as a rune, since porcupine compares states with ==: a set of values is a string. A run has fewer of them than there are runes below
// the surrogates.
func value(id uint64) string { return string(rune(id)) }

func with(set, id string) string {
	if strings.Contains(set, id) {
		return set
	}
	runes := append([]rune(set), []rune(id)...)
	slices.Sort(runes)
	return string(runes)
}

var model = porcupine.Model{
	Init: func() any { return register{now: zero, volatile: zero} },
	Step: func(state, in, out any) (bool, any) {
		r, i := state.(register), in.(input)
		switch i.kind {
		case write:
			id := value(i.id)
			if r.now, r.volatile = id, with(r.volatile, id); i.durable {
				r.volatile = id
			}
			r.last, r.process = id, i.process
		case read:
			id := value(out.(uint64))
			if !strings.Contains(r.now, id) {
				return false, state
			}
			r.now = id
		case frozen:
			id := value(out.(uint64))
			if !strings.Contains(r.now, id) {
				return false, state
			}
			r.now, r.volatile = id, id
		case flush:
			if i.process != 0 && r.process == i.process {
				r.now = r.last
			}
			r.volatile = r.now
		case told:
			r.process = 0
		case loss:
			r.now = r.volatile
		}
		return true, r
	},
	DescribeOperation: func(in, out any) string {
		i := in.(input)
		return fmt.Sprintf("%v %d %v", []string{"read", "write", "flush", "power lost", "told", "in a snapshot"}[i.kind], i.id, out)
	},
}

// bySector sorts requests by the sectors they touch. Flushes and losses touch all of their range's that anybody wrote.
func (h *history) bySector() map[sector][]*op {
	out := map[sector][]*op{}
	lossy := map[sector]bool{}
	for _, o := range h.ops {
		if o.kind == read && o.ret != 0 || o.kind == write || o.kind == frozen {
			for n := o.first; n < o.first+o.count; n++ {
				out[sector{o.volume, n}] = append(out[sector{o.volume, n}], o)
			}
		}
	}
	for _, o := range h.ops {
		for s := range out {
			if o.kind == loss && o.covers(s) {
				out[s] = append(out[s], o)
				lossy[s] = true
			}
		}
	}
	for _, o := range h.ops {
		for s := range lossy {
			if (o.kind == flush || o.kind == told) && o.ret != 0 && o.covers(s) {
				out[s] = append(out[s], o)
			}
		}
	}
	return out
}

func (o *op) covers(s sector) bool {
	return o.volume == s.volume && (o.kind == flush || o.kind == told || o.first <= s.number && s.number < o.first+o.count)
}

// check returns a sentence for each sector whose history has no order.
func (h *history) check() (wrong []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s, ops := range h.bySector() {
		if !porcupine.CheckOperations(model, operations(s, ops)) {
			wrong = append(wrong, fmt.Sprintf("volume %d, sector %d (block %d): no order explains what was read:\n%s", s.volume, s.number,
				s.number/8, describe(s, ops)))
		}
	}
	slices.Sort(wrong)
	return append(h.torn(), wrong...)
}

// operations are a sector's as porcupine takes them. A write that did not succeed and was never seen explains nothing.
func operations(s sector, ops []*op) (out []porcupine.Operation) {
	seen := map[uint64]bool{}
	for _, o := range ops {
		if o.kind == read || o.kind == frozen {
			seen[o.id(s.number)] = true
		}
	}
	for _, o := range ops {
		p := porcupine.Operation{ClientId: o.client, Call: o.call, Return: o.ret, Input: input{kind: o.kind, process: o.process}}
		switch o.kind {
		case write:
			id := o.id(s.number)
			if o.ret == 0 {
				p.Return = math.MaxInt64
				if !seen[id] {
					continue
				}
			}
			i := input{kind: write, id: id}
			if o.ret != 0 {
				i.durable, i.process = o.durable, o.process
			}
			p.Input = i
		case read, frozen:
			p.Output = o.id(s.number)
		}
		out = append(out, p)
	}
	return out
}

// describe lists a sector's history, by the time of the calls.
func describe(s sector, ops []*op) string {
	ops = slices.SortedFunc(slices.Values(ops), func(a, b *op) int { return int(a.call - b.call) })
	var out strings.Builder
	for _, o := range ops {
		what := map[kind]string{read: "read", write: "write", flush: "flush", loss: "power lost", told: "flush that fails: writes are lost", frozen: "in a snapshot"}[o.kind]
		if o.kind <= write || o.kind == frozen {
			what += fmt.Sprint(" ", o.id(s.number))
		}
		if o.durable {
			what += " durably"
		}
		end := fmt.Sprint(o.ret)
		if o.ret == 0 {
			end = "?"
		}
		fmt.Fprintf(&out, "    [%d %s] client %d: %s\n", o.call, end, o.client, what)
	}
	return out.String()
}
