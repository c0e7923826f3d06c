package store

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

// crashBlocks is how many blocks of each chunk the crash tests use: few, so that they meet.
const crashBlocks = 6

// history is what the user of a store may rely on after a crash.
type history struct {
	layer  uint32
	epoch  uint64 // acknowledged
	tried  uint64
	over   bool // the file stands over another's snapshot
	chunks map[chunk.ID]*chunkHistory
	frozen map[uint32]map[chunk.ID][crashBlocks][]byte // of layers that are not gone, what was flushed; nil: anything

	unflushed map[uint32]map[chunk.ID][crashBlocks][]byte // of such that began since the last flush, what they held
}

type chunkHistory struct {
	acked   [crashBlocks][]byte // what a read must return; nil: anything
	synced  [crashBlocks]bool   // also after a power cut
	wrote   [crashBlocks]bool   // ever
	had     [crashBlocks]bool   // and that was made durable: where absent blocks may show what is under the file, it is never absent again
	version uint64
	maybe   uint64 // a version that was asked for last
	open    bool   // a write has been tried since it was settled: it may be suspect
	must    bool   // a write was acknowledged since: it must be suspect
}

// crashOp is one operation of a script: do it, then tell the history what is promised now. before says what is not any more.
type crashOp struct {
	name   string
	before func(h *history)
	do     func(s *Store, h *history) error
	after  func(h *history)
}

func (h *history) access(id chunk.ID) Access {
	return Access{Epoch: h.epoch, Version: h.chunks[id].version, Layer: h.layer, Over: h.over}
}

// script makes a sequence of operations from a seed.
func script(seed uint64) []crashOp {
	rnd := rand.New(rand.NewPCG(seed, 2))
	ids := []chunk.ID{{File: 7, Index: 0}, {File: 7, Index: 1}, {File: 7, Index: 300}}
	ops := []crashOp{prepareOp(ids)}
	for i := range 14 {
		id := ids[rnd.IntN(len(ids))]
		if withJournal > 0 && rnd.IntN(6) == 0 {
			ops = append(ops, crashOp{name: "checkpoint", do: func(s *Store, h *history) error { return s.checkpoint() }})
		}
		switch rnd.IntN(10) {
		case 0, 1, 2:
			ops = append(ops, writeOp(id, rnd, uint64(i), rnd.IntN(3) == 0))
			if rnd.IntN(3) == 0 {
				ops = append(ops, flushAheadOp())
			}
		case 3:
			ops = append(ops, partOp(id, rnd, uint64(i)))
		case 4:
			ops = append(ops, zeroOp(id, rnd))
		case 5:
			ops = append(ops, flushOp())
		case 6:
			ops = append(ops, settleOp(ids))
		case 7:
			ops = append(ops, fenceOp())
		case 8:
			ops = append(ops, raiseOp(id))
		case 9:
			if ops = append(ops, newLayerOp()); rnd.IntN(2) == 0 {
				ops = append(ops, flushOp()) // R11flush
			}
			if rnd.IntN(2) == 0 {
				ops = append(ops, foldOps(ids, rnd)...)
			}
		}
	}
	return ops
}

func prepareOp(ids []chunk.ID) crashOp {
	return crashOp{name: "prepare",
		do: func(s *Store, h *history) error {
			var ps []Preparation
			for _, id := range ids {
				ps = append(ps, preparation(id))
			}
			h.tried = 1
			return errors.Join(s.Prepare(ps)...)
		},
		after: func(h *history) {
			h.epoch = 1
			for _, id := range ids {
				c := &chunkHistory{version: 1}
				for b := range c.acked {
					c.acked[b], c.synced[b] = make([]byte, bs), true
				}
				h.chunks[id] = c
			}
		}}
}

// writing forgets what is promised of blocks that are being changed.
func (c *chunkHistory) writing(first, n int) {
	c.open = true
	for b := first; b < first+n; b++ {
		c.acked[b], c.synced[b], c.wrote[b] = nil, false, true
	}
}

func writeOp(id chunk.ID, rnd *rand.Rand, seed uint64, sync bool) crashOp {
	first := rnd.IntN(crashBlocks)
	n := 1 + rnd.IntN(crashBlocks-first)
	data := pattern(seed*100+id.File+uint64(id.Index), n*bs)
	return crashOp{name: fmt.Sprintf("write %s %d+%d sync=%t", id, first, n, sync),
		before: func(h *history) { h.chunks[id].writing(first, n) },
		do: func(s *Store, h *history) error {
			return s.Write(id, h.access(id), uint32(first*bs), data, sumsOf(id, uint32(first*bs), data), sync)
		},
		after: func(h *history) {
			c := h.chunks[id]
			c.must = true
			for i := range n {
				c.acked[first+i], c.synced[first+i] = data[i*bs:(i+1)*bs], sync
				c.had[first+i] = c.had[first+i] || sync
			}
		}}
}

func partOp(id chunk.ID, rnd *rand.Rand, seed uint64) crashOp {
	block, at := rnd.IntN(crashBlocks), rnd.IntN(7)*512
	data := pattern(seed*100+77, 512)
	var was []byte
	return crashOp{name: fmt.Sprintf("write %s %d at %d", id, block, at),
		before: func(h *history) {
			was = h.chunks[id].acked[block]
			h.chunks[id].writing(block, 1)
		},
		do: func(s *Store, h *history) error {
			return write(s, id, h.access(id), uint32(block*bs+at), data)
		},
		after: func(h *history) {
			h.chunks[id].must = true
			h.chunks[id].acked[block] = append([]byte(nil), was...)
			copy(h.chunks[id].acked[block][at:], data)
		}}
}

func zeroOp(id chunk.ID, rnd *rand.Rand) crashOp {
	first := rnd.IntN(crashBlocks)
	n := 1 + rnd.IntN(crashBlocks-first)
	return crashOp{name: fmt.Sprintf("zero %s %d+%d", id, first, n),
		before: func(h *history) { h.chunks[id].writing(first, n) },
		do: func(s *Store, h *history) error {
			return s.Zero(id, h.access(id), uint32(first*bs), uint32(n*bs), false)
		},
		after: func(h *history) {
			h.chunks[id].must = true
			for b := first; b < first+n; b++ {
				h.chunks[id].acked[b] = make([]byte, bs)
			}
		}}
}

func (h *history) allSynced() {
	maps.Copy(h.frozen, h.unflushed)
	clear(h.unflushed)
	for _, c := range h.chunks {
		for b := range c.synced {
			c.synced[b] = c.acked[b] != nil
			c.had[b] = c.had[b] || c.synced[b] && c.wrote[b]
		}
	}
}

// oldest is the lowest layer that may not be flushed, 0 if only the last is.
func (h *history) oldest() (layer uint32) {
	for l := range h.unflushed {
		if layer == 0 || l < layer {
			layer = l
		}
	}
	return layer
}

// flushAheadOp is a flush that nobody has asked for: nothing is promised by it.
func flushAheadOp() crashOp {
	return crashOp{name: "flush ahead", do: func(s *Store, h *history) error { return s.Flush(7, h.epoch) }}
}

func flushOp() crashOp {
	return crashOp{name: "flush", do: func(s *Store, h *history) error { return s.Flush(7, h.epoch) },
		after: (*history).allSynced}
}

func settleOp(ids []chunk.ID) crashOp {
	return crashOp{name: "settle",
		before: func(h *history) {
			for _, c := range h.chunks {
				c.must = false
			}
		},
		do: func(s *Store, h *history) error {
			var all []ChunkVersion
			for _, id := range ids {
				all = append(all, ChunkVersion{id.Index, h.chunks[id].version})
			}
			return s.Settle(7, h.epoch, all)
		},
		after: func(h *history) {
			h.allSynced()
			for _, c := range h.chunks {
				c.open = false
			}
		}}
}

func fenceOp() crashOp {
	return crashOp{name: "fence", before: func(h *history) { h.tried = h.epoch + 1 },
		do: func(s *Store, h *history) error {
			open, err := s.Fence(7, h.tried)
			if err != nil {
				return err
			}
			for id, c := range h.chunks {
				listed := false
				for _, o := range open {
					listed = listed || o.Index == id.Index
				}
				if listed != c.must {
					return fmt.Errorf("chunk %s listed as open: %t, want %t", id, listed, c.must)
				}
			}
			return nil
		},
		after: func(h *history) { h.epoch = h.tried }}
}

func raiseOp(id chunk.ID) crashOp {
	return crashOp{name: "raise " + id.String(),
		before: func(h *history) { h.chunks[id].maybe = h.chunks[id].version + 2 },
		do: func(s *Store, h *history) error {
			return s.Raise(7, h.epoch, []ChunkVersion{{id.Index, h.chunks[id].maybe}})
		},
		after: func(h *history) { h.chunks[id].version = h.chunks[id].maybe }}
}

// runScript runs the operations until one fails.
func runScript(s *Store, h *history, ops []crashOp) (crashOp, error) {
	for _, op := range ops {
		if op.before != nil {
			op.before(h)
		}
		if op.do != nil {
			if err := op.do(s, h); err != nil {
				return op, err
			}
		}
		if op.after != nil {
			op.after(h)
		}
	}
	return crashOp{}, nil
}

func TestEveryPromiseHoldsAfterACrashAtAnyStep(t *testing.T) {
	bothWays(t, testEveryPromiseHoldsAfterACrashAtAnyStep)
}

func testEveryPromiseHoldsAfterACrashAtAnyStep(t *testing.T) {
	seeds := uint64(15)
	if withJournal > 0 {
		seeds = 6 // each takes longer: the journal is made and read every time
	}
	for seed := range seeds {
		for _, power := range []bool{false, true} {
			t.Run(fmt.Sprintf("seed %d power %t", seed, power), func(t *testing.T) {
				ops := script(seed)
				for step := 1; crashAt(t, seed, ops, step, power); step++ {
				}
			})
		}
	}
}

// crashAt ends the store's life in that step of the script, or in Close after it, and checks what is left. It returns false once the
// store was closed before.
func crashAt(t *testing.T, seed uint64, ops []crashOp, step int, power bool) bool {
	m := disk.NewMem(seed*1000 + uint64(step))
	created(t, m, "cs")
	s := opened(t, m, "cs", Options{})
	if seed%2 == 1 {
		s.cache.maxFiles, s.cache.maxTables = 1, testBlocks*chunk.CodeSize // files are closed while dirty
	}
	h := &history{layer: 1, chunks: map[chunk.ID]*chunkHistory{}, frozen: map[uint32]map[chunk.ID][crashBlocks][]byte{},
		unflushed: map[uint32]map[chunk.ID][crashBlocks][]byte{}}
	h.over = seed%4 < 2
	s.foldLast = int(seed % 3)
	m.Dies(step)
	op, err := runScript(s, h, ops)
	closed := err == nil
	if err != nil && !errors.Is(err, disk.ErrDead) && !errors.Is(err, ErrIO) {
		t.Fatalf("step %d: %s: %v", step, op.name, err)
	}
	if err := s.Close(); closed && err != nil {
		closed = false
	}
	m.Restart(power)
	h.checkDisk(t, m, step)
	s = opened(t, m, "cs", Options{})
	defer s.Close()
	if t.Failed() {
		return false
	}
	if op.name == "" {
		op.name = "close"
	}
	when := fmt.Sprintf("killed in step %d, %s", step, op.name)
	h.check(t, s, when, power, closed)
	if !t.Failed() {
		h.checkAgain(t, m, when)
	}
	return !closed && !t.Failed()
}

// checkDisk has Check find torn blocks at most, in suspect chunks.
func (h *history) checkDisk(t *testing.T, m *disk.Mem, step int) {
	_, err := Check(m, "cs", func(p Problem) {
		if p.Severity == Damage || p.Severity == Torn && !h.chunks[p.ID].open {
			t.Errorf("step %d: %s", step, p)
		}
	})
	must(t, err)
}

func (h *history) check(t *testing.T, s *Store, when string, power, closed bool) {
	all := inventory(s)
	if f := s.file(7, false); h.epoch > 0 && (f == nil || f.epoch.Load() != h.epoch && f.epoch.Load() != h.tried) {
		t.Errorf("%s: the epoch is not %d or %d", when, h.epoch, h.tried)
	}
	suspicion := ProcessDied
	if power {
		suspicion = MachineDied
	}
	for id, c := range h.chunks {
		r, ok := all[id]
		switch {
		case !ok || r.State != InSync:
			t.Errorf("%s: chunk %s is %+v", when, id, r)
		case r.Version != c.version && r.Version != c.maybe:
			t.Errorf("%s: chunk %s has version %d, not %d or %d", when, id, r.Version, c.version, c.maybe)
		case closed && r.Suspect != Sound, r.Suspect != Sound && r.Suspect != suspicion, r.Suspect != Sound && !c.open,
			r.Suspect == Sound && c.must && !closed:
			t.Errorf("%s: chunk %s is suspect %s, open %t, must %t", when, id, r.Suspect, c.open, c.must)
		}
		c.version = r.Version
		h.epoch = s.file(7, false).epoch.Load()
		h.checkChunk(t, s, id, r, when, power && !closed)
	}
}

func (h *history) checkChunk(t *testing.T, s *Store, id chunk.ID, r Replica, when string, power bool) {
	c := h.chunks[id]
	if r.Suspect != Sound {
		_, err := readAll(s, id, h.access(id), 0, bs)
		wantErr(t, err, ErrSuspect)
		wantErr(t, write(s, id, h.access(id), 0, pattern(1, bs)), ErrSuspect)
		must(t, s.Absolve(id, c.version, h.oldest(), nobody))
	}
	got, err := readAll(s, id, h.access(id), 0, crashBlocks*bs)
	if err != nil {
		t.Errorf("%s: chunk %s: %v", when, id, err)
		return
	}
	for b, want := range c.acked {
		if want != nil && (c.synced[b] || !power) && !bytes.Equal(got[b*bs:(b+1)*bs], want) {
			t.Errorf("%s: chunk %s lost block %d (synced %t)", when, id, b, c.synced[b])
		}
	}
	codes := make([]uint32, crashBlocks)
	must(t, s.Table(id, h.access(id), 0, crashBlocks*bs, codes, false))
	for b, had := range c.had {
		if had && h.over && codes[b] == chunk.Absent {
			t.Errorf("%s: chunk %s has no block %d any more", when, id, b)
		}
	}
	h.checkFrozen(t, s, id, when)
	must(t, s.Fold(id, freely))
	wantBytes(t, s, id, h.access(id), 0, got)
	h.checkFrozen(t, s, id, when+", then folded")
	must(t, write(s, id, h.access(id), 0, pattern(1, bs)))
}

func TestSuspicionKeepsTheWorst(t *testing.T) { bothWays(t, testSuspicionKeepsTheWorst) }

func testSuspicionKeepsTheWorst(t *testing.T) {
	for _, c := range []struct {
		first, second bool
		want          Suspicion
	}{{false, false, ProcessDied}, {false, true, MachineDied}, {true, false, MachineDied}, {true, true, MachineDied}} {
		s, m := memStore(t, idA)
		must(t, write(s, idA, access, 0, pattern(1, bs)))
		m.Restart(c.first)
		opened(t, m, "cs", Options{})
		m.Restart(c.second)
		again := opened(t, m, "cs", Options{})
		if got := inventory(again)[idA].Suspect; got != c.want {
			t.Errorf("after power cuts %t, %t: %s, want %s", c.first, c.second, got, c.want)
		}
		must(t, again.Close())
		again = opened(t, m, "cs", Options{})
		if got := inventory(again)[idA].Suspect; got != c.want {
			t.Errorf("and after a clean restart: %s, want %s", got, c.want)
		}
		must(t, again.Close())
	}
}

func TestStoreInUseOrOfAnotherFormatIsNotOpened(t *testing.T) {
	dir := t.TempDir() + "/cs"
	_, err := Open(disk.OS{}, dir, Options{})
	wantErr(t, err, ErrFormat)
	created(t, disk.OS{}, dir)
	if err := Create(disk.OS{}, dir); err == nil || !strings.Contains(err.Error(), "exist") {
		t.Fatalf("created twice: %v", err)
	}
	s := opened(t, disk.OS{}, dir, Options{})
	_, err = Open(disk.OS{}, dir, Options{})
	wantErr(t, err, ErrLocked)
	must(t, s.db.commit(Change{Key: metaKey(metaFormat), Value: []byte{9, 0, 0, 0}}))
	must(t, s.Close())
	_, err = Open(disk.OS{}, dir, Options{})
	wantErr(t, err, ErrFormat)
}
