package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"pstorage/cli/size"
	"pstorage/itest/cluster"
	"pstorage/itest/nbd"
)

// Recovered says how fast the replicas of a lost chunk server were made anew.
type Recovered struct {
	Bytes int64
	Took  time.Duration // from the first byte until all is in sync
	// Copy and Synced: the same bytes copied by cp between the same folders, without and with syncing them.
	Copy, Synced time.Duration
	// Alone and Beside: 4 KiB writes a second of a user, before and during another recovery of the same bytes.
	Alone, Beside float64
	TookBeside    time.Duration
}

func (r Recovered) rate(took time.Duration) float64 { return float64(r.Bytes) / 1e6 / took.Seconds() }

// OfCopy is the speed as a part of that of cp; synced says whether cp's bytes count when they are on the disk, as recovery's do.
func (r Recovered) OfCopy(synced bool) float64 {
	if synced {
		return r.rate(r.Took) / r.rate(r.Synced)
	}
	return r.rate(r.Took) / r.rate(r.Copy)
}

// Left is the part of their speed that the user's writes keep.
func (r Recovered) Left() float64 { return r.Beside / r.Alone }

func (r Recovered) String() string {
	return fmt.Sprintf("%s recovered at %.0f MB/s; cp %.0f MB/s (%.0f %% of it), with a sync %.0f MB/s (%.0f %%); 4 KiB writes %.0f/s alone, %.0f/s beside a recovery at %.0f MB/s (%.0f %% left)",
		size.Format(uint64(r.Bytes)), r.rate(r.Took), r.rate(r.Copy), 100*r.OfCopy(false), r.rate(r.Synced), 100*r.OfCopy(true),
		r.Alone, r.Beside, r.rate(r.TookBeside), 100*r.Left())
}

const (
	offlineTimeout = "mds.wd.offline_tout"
	pulledBytes    = "pstorage_cs_pulled_bytes_total"
	// userBytes is the volume of the user who works beside a recovery.
	userBytes = 256 << 20
	userDepth = 16
	aloneTime = 5 * time.Second
	// recoveryTime bounds each recovery.
	recoveryTime = 10 * time.Minute
	// beginLook is how often it is looked whether a recovery has begun, endLook whether it is over: more rarely, as each time a command is run,
	// which takes from what is measured.
	beginLook, endLook = 50 * time.Millisecond, 250 * time.Millisecond
)

// Recovery loses one of two chunk servers with all that is on it, twice, and lets a new one take its place: first with nothing else going on,
// then beside a user. The cluster has two chunk servers and serves metrics.
func Recovery(ctx context.Context, c *cluster.Cluster, bytes int64) (r Recovered, err error) {
	r.Bytes = bytes
	for name, n := range map[string]int64{"v": bytes, "user": userBytes} {
		if _, err := c.Run(ctx, "create", name, "-s", strconv.FormatInt(n, 10), "--replicas", "2:1"); err != nil {
			return r, err
		}
	}
	if err := FillVolume(ctx, c.NBD("v"), bytes); err != nil {
		return r, err
	}
	if err := r.copies(ctx, c); err != nil {
		return r, err
	}
	if r.Took, err = recoverOnto(ctx, c, 0, func() error { return nil }); err != nil {
		return r, err
	}
	r.TookBeside, err = recoverOnto(ctx, c, 1, func() error { return r.alone(ctx, c) }, func(stop <-chan struct{}) error { return r.beside(c, stop) })
	return r, err
}

// copies times cp from one chunk server's folder to another's.
func (r *Recovered) copies(ctx context.Context, c *cluster.Cluster) error {
	target := filepath.Join(filepath.Dir(c.CSDir(1)), "copy")
	for _, synced := range []bool{false, true} {
		began := time.Now()
		if _, err := run(ctx, "cp", "-r", filepath.Join(c.CSDir(0), "store", "chunks"), target); err != nil {
			return err
		}
		r.Copy = min(max(r.Copy, time.Since(began)), time.Since(began))
		if synced {
			if _, err := run(ctx, "sync", "-f", target); err != nil {
				return err
			}
			r.Synced = time.Since(began)
		}
		if err := os.RemoveAll(target); err != nil {
			return err
		}
	}
	return nil
}

// recoverOnto loses chunk server lost, adds another, and times how it is filled. before runs when the server is lost and nothing is recovered
// yet, beside while it is.
func recoverOnto(ctx context.Context, c *cluster.Cluster, lost int, before func() error, beside ...func(<-chan struct{}) error) (took time.Duration, err error) {
	if err := c.Configure(ctx, map[string]string{offlineTimeout: "1h"}); err != nil {
		return 0, err
	}
	c.CS[lost].Kill()
	if err := errors.Join(os.RemoveAll(c.CSDir(lost)), c.AddCS(ctx), before()); err != nil {
		return 0, err
	}
	var users sync.WaitGroup
	stop, failed := make(chan struct{}), make([]error, len(beside))
	for i, user := range beside {
		users.Go(func() { failed[i] = user(stop) })
	}
	if err = c.Configure(ctx, map[string]string{offlineTimeout: "1s"}); err == nil {
		took, err = timeRecovery(ctx, c)
	}
	close(stop)
	users.Wait()
	return took, errors.Join(append(failed, err)...)
}

// timeRecovery waits for the first byte, and then until no chunk lacks a replica.
func timeRecovery(ctx context.Context, c *cluster.Cluster) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, recoveryTime)
	defer cancel()
	var began time.Time
	look := beginLook
	for {
		moved, err := c.CS[len(c.CS)-1].Metric(ctx, pulledBytes)
		if err != nil {
			return 0, err
		}
		state, err := c.State(ctx)
		if err != nil {
			return 0, err
		}
		if began.IsZero() && (moved > 0 || state.Chunks.Replicating > 0) {
			began, look = time.Now(), endLook
		}
		if !began.IsZero() && state.Chunks.Degraded+state.Chunks.Blocked+state.Chunks.Replicating == 0 {
			return time.Since(began), nil
		}
		if err := Wait(ctx, look); err != nil {
			return 0, fmt.Errorf("%s recovered, %+v: %w", size.Format(uint64(moved)), state.Chunks, err)
		}
	}
}

func userWrites(c *cluster.Cluster, how time.Duration) (perSecond float64, err error) {
	result, err := nbd.Load(c.NBD("user"), nbd.Pattern{Write: true, Size: 4096, Depth: userDepth}, how)
	return result.PerSecond(), err
}

// alone makes the user's volume, now that the servers that will hold it are there, and measures.
func (r *Recovered) alone(ctx context.Context, c *cluster.Cluster) (err error) {
	if err := FillVolume(ctx, c.NBD("user"), userBytes); err != nil {
		return err
	}
	r.Alone, err = userWrites(c, aloneTime)
	return err
}

// beside writes in short turns until it is told to stop, and takes the mean of those that were over in time.
func (r *Recovered) beside(c *cluster.Cluster, stop <-chan struct{}) error {
	total, turns := 0.0, 0
	for {
		rate, err := userWrites(c, time.Second)
		if err != nil {
			return err
		}
		select {
		case <-stop:
			if turns == 0 {
				total, turns = rate, 1
			}
			r.Beside = total / float64(turns)
			return nil
		default:
			total, turns = total+rate, turns+1
		}
	}
}
