package recovery_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
	"pstorage/meta/metatest"
)

// crowd gives the cluster a file of many small chunks on all of its servers, and leaves it so that half of them have to be rebuilt on each of the
// last two: so many that nothing else is looked through. Pulls wait until the channel is closed.
func (c *scene) crowd(t *testing.T, n int) (file uint64, pull chan struct{}) {
	t.Helper()
	_, err := c.Leader().Create(context.Background(), &metapb.CreateRequest{Path: "/g", Size: 1 << 30,
		Attributes: &metapb.Attributes{ReplicasNorm: uint32(len(c.s)), ReplicasMin: 1, ChunkSize: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	v := c.Client('g', 1).Open("/g")
	v.Settle()
	v.Allocate(n)
	pull = make(chan struct{})
	away := c.s[len(c.s)-2:]
	for i, s := range away {
		s.Stop()
		drop := &metapb.DropRequest{Client: v.ID, File: v.File, Epoch: v.Epoch, Server: s.ID}
		for k := range n / 2 {
			drop.Indices = append(drop.Indices, uint32(2*k+i))
		}
		if r, err := c.Leader().Drop(context.Background(), drop); err != nil || len(r.Refused) > 0 {
			t.Fatalf("drop: %v, %v", err, r)
		}
		s.Hook(func(m *metapb.Command) error {
			if m.GetPull() != nil {
				<-pull
			}
			return nil
		})
	}
	for _, s := range away {
		s.Start()
	}
	return v.File, pull
}

// The time for which a look was held up by rebuilds says nothing about what looking costs: the next one follows soon, and finds what could not
// be trimmed before.
func TestSurplusIsFoundSoonAfterALookThatWasHeldUp(t *testing.T) {
	play(t, func(t *testing.T, c *scene) {
		c.Config("mds.wd.rebalance", "0")
		c.add(2)
		const many = 300
		g, pull := c.crowd(t, many)
		next := c.Client('a', 2).Open("/f") // not settled: nothing of it may change
		c.set(t, &metapb.Attributes{ReplicasNorm: 2, ReplicasMin: 1})
		time.Sleep(50 * time.Second) // less than a silent pull is given
		close(pull)
		c.Within(time.Minute, "the others are whole", func() bool {
			return !slices.ContainsFunc(metatest.Keys(g, many), func(k fsm.ChunkKey) bool { return len(c.Chunk(k.File, k.Index).Insync) < len(c.s) })
		})
		if r := c.Chunk(c.v.File, 0); len(r.Insync) != 3 {
			t.Fatalf("trimmed before the holder has settled: %+v", r)
		}
		next.Settle()
		c.Within(2*time.Minute, "trimmed", func() bool { return len(c.Chunk(c.v.File, 0).Insync) == 2 })
	})
}
