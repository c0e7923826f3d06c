package blockstore

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs/wire"
)

// asked lists what servers are asked for to write and to flush, as one of them sees it.
type asked struct {
	k     *cluster
	steps []string
}

func (a *asked) follow() {
	s := a.k.servers[0]
	s.set(func() {
		s.fail = func(w *wire.Call) wire.Status {
			switch {
			case w.Op == wire.OpFlush:
				a.steps = append(a.steps, "flush")
			case w.Op == wire.OpWrite && w.Flags&wire.FlagSync != 0:
				a.steps = append(a.steps, "durable write")
			case w.Op == wire.OpWrite:
				a.steps = append(a.steps, "write")
			}
			return wire.OK
		}
	})
}

func (a *asked) want(t *testing.T, after string, want ...string) {
	t.Helper()
	var got []string
	s := a.k.servers[0]
	s.set(func() { got, a.steps = a.steps, nil })
	if !slices.Equal(got, want) {
		t.Errorf("%s: the server is asked to %q, want %q", after, got, want)
	}
}

func TestAWriteThatAFlushAlwaysFollowsIsDurableAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		seed := uint64(0)
		do := func(op block.Op, bytes int) {
			t.Helper()
			r := &block.Request{Op: op}
			if op == block.Write {
				seed++
				r = blocktest.Write(0, blocktest.Bytes(seed, bytes))
			}
			if blocktest.Do(v, r); r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		pairs := func(n int) {
			for range n {
				do(block.Write, block.Size)
				do(block.Flush, 0)
			}
		}
		a := &asked{k: k}
		pairs(1)
		a.follow()
		pairs(aheadAfter - 1)
		a.want(t, "while the habit forms", slices.Repeat([]string{"write", "flush"}, aheadAfter-1)...)
		pairs(3)
		a.want(t, "with the habit", "durable write", "durable write", "durable write")
		do(block.Flush, 0)
		a.want(t, "a flush of nothing")
		do(block.Write, aheadMost+block.Size)
		do(block.Flush, 0)
		a.want(t, "a large write", "write", "flush")
		do(block.Write, block.Size)
		do(block.Write, block.Size)
		do(block.Write, block.Size)
		do(block.Flush, 0)
		a.want(t, "a flush after several writes", "durable write", "write", "write", "flush")
		pairs(1)
		a.want(t, "without the habit", "write", "flush")
		if got := v.metrics.ahead.Load(); got != 4 {
			t.Errorf("%d writes counted, want 4", got)
		}
	})
}

func TestAFlushAfterADurableWriteStillCoversWhatOthersWrote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer k.end(v)
		a := &asked{k: k}
		for i := range aheadAfter + 1 {
			if err := write(v, 0, uint64(i)); err != nil {
				t.Fatal(err)
			}
			blocktest.Do(v, &block.Request{Op: block.Flush})
		}
		a.follow()
		for _, r := range []*block.Request{{Op: block.WriteZeroes, Offset: block.Size, Length: block.Size}, blocktest.Write(0, blocktest.Bytes(99, block.Size)), {Op: block.Flush}} {
			if blocktest.Do(v, r); r.Err != nil {
				t.Fatal(fmt.Errorf("%v: %w", r.Op, r.Err))
			}
		}
		a.want(t, "with zeroes in between", "durable write", "flush")
	})
}
