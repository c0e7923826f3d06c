package scenario

import (
	"context"
	"fmt"
	"time"

	"pstorage/cli/size"
	"pstorage/itest/cluster"
)

// Resynced says what a chunk server that had been away took to be in sync again.
type Resynced struct {
	Stored  int64 // bytes in the volume
	Written int64 // while it was away
	Moved   int64 // to it, when it was back
	Took    time.Duration
}

func (r Resynced) String() string {
	return fmt.Sprintf("%s of %s written meanwhile, %s moved (%.2f times as much) in %.1f s", size.Format(uint64(r.Written)), size.Format(uint64(r.Stored)),
		size.Format(uint64(r.Moved)), float64(r.Moved)/float64(r.Written), r.Took.Seconds())
}

// Resync kills a chunk server, writes blocks here and there for as long as it is away, and starts it again. The cluster has three chunk
// servers, serves metrics, and has a volume v of at least that many bytes.
func Resync(ctx context.Context, c *cluster.Cluster, bytes, written int64, away time.Duration, seed uint64) (r Resynced, err error) {
	const victim = 1
	r.Stored, r.Written = bytes, written
	if err := FillVolume(ctx, c.NBD("v"), bytes); err != nil {
		return r, err
	}
	back := time.Now().Add(away)
	c.CS[victim].Kill()
	if err := Scatter(c.NBD("v"), bytes, int(written/4096), seed); err != nil {
		return r, err
	}
	if err := Wait(ctx, time.Until(back)); err != nil {
		return r, err
	}
	began := time.Now()
	if err := c.StartCS(ctx, victim); err != nil {
		return r, err
	}
	if err := c.WaitWhole(ctx, wholeTime); err != nil {
		return r, err
	}
	r.Took = time.Since(began)
	moved, err := c.CS[victim].Metric(ctx, "pstorage_cs_pulled_bytes_total")
	r.Moved = int64(moved)
	return r, err
}
