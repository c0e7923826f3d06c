package check

import (
	"errors"
	"testing"

	"pstorage/blockstore/block"
)

// cached is a device with a volatile cache: a cut takes it back to what it held at the last flush it heeded.
type cached struct {
	*block.Memory
	saved   []byte
	flushes int
	heeds   int // so many flushes
}

func (c *cached) Close() error { return nil }

// whole reads or writes all of it.
func (c *cached) whole(op block.Op, data []byte) {
	r := &block.Request{Op: op, Length: int64(len(data)), Data: data, Done: nobody{}}
	c.Memory.Submit([]*block.Request{r})
}

type nobody struct{}

func (nobody) Complete([]*block.Request) {}

func (c *cached) Submit(batch []*block.Request) {
	for _, r := range batch {
		if r.Op == block.Flush {
			if c.flushes++; c.flushes <= c.heeds {
				c.whole(block.Read, c.saved)
			}
		}
		c.Memory.Submit([]*block.Request{r})
	}
}

func (c *cached) cut() { c.whole(block.Write, c.saved) }

func newCached(heeds int) *cached {
	return &cached{Memory: block.NewMemory(volumeSize), saved: make([]byte, volumeSize), heeds: heeds}
}

func TestACutMayTakeWhatWasNotFlushed(t *testing.T) {
	device := newCached(1 << 30)
	client := serve(t, device)
	v := New(volumeSize, 1)
	v.Cuts = true
	for round := range 3 {
		if err := v.Run(client, 300, nil); err != nil {
			t.Fatal(err)
		}
		if device.flushes == 0 || v.Unflushed() == 0 {
			t.Fatal("the workload is to have flushes, and something not flushed")
		}
		device.cut()
		if err := v.VerifyCut(client); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	if err := v.Run(client, 300, nil); err != nil {
		t.Fatal(err)
	}
	device.cut()
	if err := v.Verify(client); !errors.Is(err, ErrWrong) {
		t.Errorf("what was lost counts as there: %v", err)
	}
}

func TestACutThatTakesWhatWasFlushedIsFound(t *testing.T) {
	device := newCached(1)
	client := serve(t, device)
	v := New(volumeSize, 1)
	v.Cuts = true
	if err := v.Run(client, 300, nil); err != nil {
		t.Fatal(err)
	}
	device.cut()
	if err := v.VerifyCut(client); !errors.Is(err, ErrWrong) {
		t.Errorf("flushes were not heeded, and the checker says %v", err)
	}
}
