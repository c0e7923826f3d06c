package recovery_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
)

// snapshot gives the file a layer on top of the one that it has.
func (c *scene) snapshot(layer uint32) {
	c.Do(&fsmpb.Command{Command: &fsmpb.Command_TakeSnapshots{TakeSnapshots: &fsmpb.TakeSnapshots{Files: []*fsmpb.TakeSnapshot{{
		File: c.v.File, Epoch: c.v.Epoch, Client: c.v.ID.Id,
		Snapshot: &fsmpb.Snapshot{Id: slices.Repeat([]byte{byte(layer)}, fsm.SnapshotIDSize), Layer: layer}}}}}})
}

// R11: a layer that begins between the plan of a rebuild and the raise is written by those in sync alone at first, so it is pulled too.
func TestALayerThatBeginsBeforeTheRaiseIsPulledToo(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.s[2].Stop()
		c.drop(t, 2)
		var mu sync.Mutex
		var pulled [][]uint32
		begun := false
		c.s[2].Hook(func(m *metapb.Command) error {
			mu.Lock()
			defer mu.Unlock()
			if m.GetPrepare() != nil && !begun {
				begun = true
				c.snapshot(1)
			}
			if m.GetPull() != nil {
				pulled = append(pulled, m.GetPull().Layers)
			}
			return nil
		})
		c.s[2].Start()
		c.Within(10*time.Second, "rebuilt", func() bool { return c.whole(0, 1, 2) })
		mu.Lock()
		defer mu.Unlock()
		if len(pulled) != chunks {
			t.Fatalf("%d pulls of %d chunks", len(pulled), chunks)
		}
		for _, layers := range pulled {
			if !slices.Equal(layers, []uint32{1, 2}) {
				t.Errorf("layers %v are pulled", layers)
			}
		}
	})
}

// Of a layer that begins later the target has every write (R7raise): the rebuild goes on.
func TestASnapshotEndsNoRebuild(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.s[2].Stop()
		c.drop(t, 2)
		begun := sync.Once{}
		c.s[2].Hook(func(m *metapb.Command) error {
			if m.GetPull() != nil {
				begun.Do(func() { c.snapshot(1) })
			}
			return nil
		})
		c.s[2].Start()
		c.Within(10*time.Second, "rebuilt", func() bool { return c.whole(0, 1, 2) })
		if n := c.s[2].Commands(func(m *metapb.Command) bool { return m.GetPull() != nil }); n != chunks {
			t.Errorf("%d pulls of %d chunks", n, chunks)
		}
	})
}
