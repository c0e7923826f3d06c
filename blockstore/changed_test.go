package blockstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs/wire"
)

// merged has all servers say that layers are merged.
func (k *cluster) merged(gone ...uint32) {
	for _, s := range k.servers {
		s.set(func() {
			s.fail = func(w *wire.Call) wire.Status {
				alone := w.Op == wire.OpTableLayer && slices.Contains(gone, w.Layer-uint32(w.Epoch)-1)
				if w.Flags&wire.FlagFrozen != 0 && (alone || slices.Contains(gone, w.Layer)) {
					return wire.NoLayer
				}
				return wire.OK
			}
		})
	}
}

// changedScene is a volume with three snapshots: block 0 is written before each, others once, another chunk only after the first, and block 5 trimmed after it.
func changedScene(t *testing.T, k *cluster) (v *Volume, all [3]*Snapshot) {
	v = k.open(t, OpenOptions{})
	steps := [3]func() error{
		func() error { return errors.Join(write(v, 0, 1), write(v, block.Size, 2), write(v, 5*block.Size, 3)) },
		func() error {
			trim := blocktest.Zero(block.Discard, 5*block.Size, block.Size)
			blocktest.Do(v, trim)
			return errors.Join(trim.Err, write(v, 0, 4), write(v, 3*testChunk+2*block.Size, 5))
		},
		func() error { return errors.Join(write(v, 0, 6), write(v, 2*block.Size, 7)) },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		layer, err := k.meta.take(fmt.Sprint("snapshot ", i))
		if err != nil {
			t.Fatal(err)
		}
		all[i] = k.openSnapshot(t, layer)
	}
	if err := write(v, 7*block.Size, 8); err != nil {
		t.Fatal(err)
	}
	return v, all
}

func (k *cluster) endScene(v *Volume, all [3]*Snapshot) {
	for _, s := range all[1:] {
		_ = s.Close()
		_ = s.c.Close()
	}
	k.endAll(v, all[0])
}

// is is a change.
func is(offset, length int64, changed, zero bool) block.Change {
	return block.Change{Offset: offset, Length: length, Changed: changed, Zero: zero}
}

func TestChangesBetweenSnapshots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(4, testSize, 3, 1)
		v, s := changedScene(t, k)
		defer k.endScene(v, s)
		const b, far = block.Size, 3*testChunk + 2*block.Size
		second := []block.Change{is(0, b, true, false), is(b, 4*b, false, false), is(5*b, b, true, true), is(6*b, far-6*b, false, false), is(far, b, true, false),
			is(far+b, testSize-far-b, false, false)}
		for _, c := range []struct {
			newer, older   int
			offset, length int64
			most           int
			want           []block.Change
		}{
			{1, 0, 0, testSize, 99, second},
			{1, 0, 0, 2 * testSize, 99, second},
			{1, 0, 0, testSize, 3, second[:3]},
			{1, 0, b + 512, 1024, 9, []block.Change{is(b+512, 1024, false, false)}},
			{1, 0, far + 512, b, 9, []block.Change{is(far+512, b-512, true, false), is(far+b, 512, false, false)}},
			{2, 1, 0, 4 * b, 9, []block.Change{is(0, b, true, false), is(b, b, false, false), is(2*b, b, true, false), is(3*b, b, false, false)}},
			{2, 0, 0, 7 * b, 9, []block.Change{is(0, b, true, false), is(b, b, false, false), is(2*b, b, true, false), is(3*b, 2*b, false, false), is(5*b, b, true, true), is(6*b, b, false, false)}},
		} {
			got, err := s[c.newer].Changed(context.Background(), s[c.older], c.offset, c.length, c.most)
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("%+v:\n%v, %v", c, got, err)
			}
		}
		k.servers[0].kill(false) // another will do
		if got, err := s[1].Changed(context.Background(), s[0], 0, testSize, 99); err != nil || !slices.Equal(got, second) {
			t.Errorf("with a server down: %v, %v", got, err)
		}
	})
}

func TestChangesAreToldOfTheSameVolumeOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 1)
		v, s := changedScene(t, k)
		defer k.endScene(v, s)
		other := &Snapshot{file: s[0].file + 1, layer: s[0].layer, name: "other@one"}
		for _, since := range []*Snapshot{other, s[1], s[2]} {
			if got, err := s[1].Changed(context.Background(), since, 0, testSize, 9); !errors.Is(err, ErrNotComparable) {
				t.Errorf("since %s: %v, %v", since.name, got, err)
			}
		}
		for _, r := range [][3]int64{{-1, 1, 1}, {0, 0, 1}, {testSize, 1, 1}, {0, 1, 0}} {
			if got, err := s[1].Changed(context.Background(), s[0], r[0], r[1], int(r[2])); !errors.Is(err, block.ErrRange) {
				t.Errorf("%v: %v, %v", r, got, err)
			}
		}
	})
}

// It is said which of the two is no more: with another that is left, the other may go on.
func TestChangesNameTheSnapshotThatWasDeleted(t *testing.T) {
	for name, gone := range map[string]int{"the older": 0, "the newer": 1} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newCluster(3, testSize, 3, 1)
				v, s := changedScene(t, k)
				defer k.endScene(v, s)
				k.merged(s[gone].layer)
				for range 2 {
					got, err := s[1].Changed(context.Background(), s[0], 0, testSize, 9)
					if !errors.Is(err, ErrSnapshotDeleted) || !s[gone].Deleted() || s[1-gone].Deleted() {
						t.Errorf("%v, %v: deleted %v, %v", got, err, s[0].Deleted(), s[1].Deleted())
					}
				}
			})
		})
	}
}

func TestChangesThatNobodyTellsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 1)
		v, s := changedScene(t, k)
		defer k.endScene(v, s)
		k.fails(wire.BadRequest) // a chunk server of an older version
		begin := time.Now()
		if _, err := s[1].Changed(context.Background(), s[0], 0, testSize, 9); err == nil || time.Since(begin) > snapshotWait+slowDeadline {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	})
}
