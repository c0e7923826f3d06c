package sim

import "testing"

// play makes a history of one sector from requests in the order of their clock; equal letters of begin and end belong together.
func play(ops ...*op) *history {
	h := &history{}
	for _, o := range ops {
		o.count = 1
		h.ops = append(h.ops, o)
	}
	return h
}

func at(k kind, id uint64, call, ret int64) *op {
	return &op{kind: k, ids: []uint64{id}, call: call, ret: ret, client: int(call)}
}

// by is at for a process.
func by(process int, k kind, id uint64, call, ret int64) *op {
	o := at(k, id, call, ret)
	o.process = process
	return o
}

func TestHistoriesAreJudged(t *testing.T) {
	for _, c := range []struct {
		name string
		good bool
		h    *history
	}{
		{"nothing written reads as zeros", true, play(at(read, 0, 1, 2))},
		{"the last write is read", true, play(at(write, 1, 1, 2), at(write, 2, 3, 4), at(read, 2, 5, 6))},
		{"an old value comes back", false, play(at(write, 1, 1, 2), at(write, 2, 3, 4), at(read, 1, 5, 6))},
		{"a write was lost", false, play(at(write, 1, 1, 2), at(read, 0, 3, 4))},
		{"one in flight may be seen or not", true, play(at(write, 1, 1, 10), at(read, 0, 2, 3), at(read, 1, 4, 5))},
		{"but not unseen again", false, play(at(write, 1, 1, 10), at(read, 1, 2, 3), at(read, 0, 4, 5))},
		{"one that failed may come late", true, play(at(write, 1, 1, 0), at(read, 0, 2, 3), at(read, 1, 4, 5))},
		{"what a lost power took", true, play(at(write, 1, 1, 2), at(loss, 0, 3, 4), at(read, 0, 5, 6))},
		{"or left", true, play(at(write, 1, 1, 2), at(loss, 0, 3, 4), at(read, 1, 5, 6))},
		{"but not both", false, play(at(write, 1, 1, 2), at(loss, 0, 3, 4), at(read, 0, 5, 6), at(read, 1, 7, 8))},
		{"a flushed write survives", false, play(at(write, 1, 1, 2), at(flush, 0, 3, 4), at(loss, 0, 5, 6), at(read, 0, 7, 8))},
		{"a flush in flight covers nothing yet", true, play(at(write, 1, 1, 2), at(flush, 0, 3, 0), at(loss, 0, 5, 6), at(read, 0, 7, 8))},
		{"a later write may be lost", true, play(at(write, 1, 1, 2), at(flush, 0, 3, 4), at(write, 2, 5, 6), at(loss, 0, 7, 8), at(read, 1, 9, 10))},
		{"not the one before it", false, play(at(write, 1, 1, 2), at(flush, 0, 3, 4), at(write, 2, 5, 6), at(loss, 0, 7, 8), at(read, 0, 9, 10))},
		{"of the volatile ones any comes back", true, play(at(write, 1, 1, 2), at(write, 2, 3, 4), at(loss, 0, 5, 6), at(read, 1, 7, 8))},
		{"a flush vouches for what its process wrote", false, play(by(7, write, 1, 1, 2), at(loss, 0, 3, 4), by(7, flush, 0, 5, 6), at(read, 0, 7, 8))},
		{"not for what another did", true, play(by(7, write, 1, 1, 2), at(loss, 0, 3, 4), by(8, flush, 0, 5, 6), at(read, 0, 7, 8))},
		{"one that failed for the loss takes that back", true,
			play(by(7, write, 1, 1, 2), at(loss, 0, 3, 4), by(7, told, 0, 5, 6), by(7, flush, 0, 7, 8), at(read, 0, 9, 10))},
		{"not for later writes", false, play(by(7, write, 1, 1, 2), at(loss, 0, 3, 4), by(7, told, 0, 5, 6), by(7, write, 2, 7, 8), at(loss, 0, 9, 10),
			by(7, flush, 0, 11, 12), at(read, 1, 13, 14))},
	} {
		if wrong := c.h.check(); c.good != (len(wrong) == 0) {
			t.Errorf("%s: want %v, found %q", c.name, c.good, wrong)
		}
	}
}

func TestADurableWriteSurvives(t *testing.T) {
	w := at(write, 1, 1, 2)
	w.durable = true
	if len(play(w, at(loss, 0, 3, 4), at(read, 0, 5, 6)).check()) != 1 {
		t.Error("lost, and not noticed")
	}
}

// TestTornAtomicWritesAreNoticed: a write of two sectors, read one by one and together.
func TestTornAtomicWritesAreNoticed(t *testing.T) {
	two := func(k kind, call, ret int64, ids ...uint64) *op {
		return &op{kind: k, ids: ids, count: 2, call: call, ret: ret, client: int(call)}
	}
	second := func(k kind, id uint64, call, ret int64) *op {
		o := at(k, id, call, ret)
		o.first, o.count = 1, 1
		return o
	}
	first := func(k kind, id uint64, call, ret int64) *op {
		o := at(k, id, call, ret)
		o.count = 1
		return o
	}
	for _, c := range []struct {
		name string
		good bool
		ops  []*op
	}{
		{"nobody has seen it", true, []*op{two(read, 20, 21, 1, 1)}},
		{"all of it is there", true, []*op{two(read, 20, 21, 2, 2)}},
		{"a part is", false, []*op{two(read, 20, 21, 2, 1)}},
		{"a part is, and was never written", false, []*op{two(read, 20, 21, 2, 0)}},
		{"a part is, one by one", false, []*op{first(read, 2, 20, 21), second(read, 1, 22, 23)}},
		{"it comes while it is read", true, []*op{second(read, 1, 20, 23), first(read, 2, 21, 22)}},
		{"a part was overwritten", true, []*op{second(write, 3, 18, 19), two(read, 20, 21, 2, 3)}},
		{"a part was, perhaps", true, []*op{second(write, 3, 5, 0), two(read, 20, 21, 2, 3)}},
		{"a part was zeroed", true, []*op{second(write, 0, 18, 19), two(read, 20, 21, 2, 0)}},
		{"it is of another volume", true, []*op{{kind: read, volume: 1, ids: []uint64{2, 1}, count: 2, call: 20, ret: 21}}},
	} {
		w := two(write, 10, 0, 2)
		w.atomic = true
		h := &history{ops: append([]*op{two(write, 1, 2, 1), w}, c.ops...)}
		if wrong := h.torn(); c.good != (len(wrong) == 0) {
			t.Errorf("%s: want %v, found %q", c.name, c.good, wrong)
		}
	}
}
