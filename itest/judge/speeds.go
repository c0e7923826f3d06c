package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"pstorage/itest/cluster"
	"pstorage/itest/scenario"
)

const (
	// mostMoved is how many times what was written a resync may move: a chunk server that comes back cannot know whether what was in
	// flight when it went is equal.
	mostMoved = 2
	// leastOfCopy is the part of cp's speed that a recovery reaches, leastLeft what it leaves to users of theirs.
	leastOfCopy = .6
	leastLeft   = .5
	// durableEach is how long each turn takes.
	durableEach = 3 * time.Second
	// leastDurable are the writes a second with journals of durableJournal MB on the same disk.
	leastDurable   = 3000
	durableJournal = 256
)

// resync has a chunk server away while something is written.
func (j *judge) resync(ctx context.Context) (string, error) {
	const stored = 1 << 30
	c, err := j.measured(ctx, 3, "3:2")
	if err != nil {
		return "", err
	}
	if _, err := c.Run(ctx, "create", "v", "-s", "1G"); err != nil {
		return "", errors.Join(err, c.Stop())
	}
	r, err := scenario.Resync(ctx, c, stored, j.written, j.away, j.seed)
	if err == nil && r.Moved > mostMoved*r.Written {
		err = fmt.Errorf("%v: more than %d times", r, mostMoved)
	}
	return r.String(), errors.Join(err, c.Stop())
}

// recovery loses a chunk server for good.
func (j *judge) recovery(ctx context.Context) (string, error) {
	c, err := j.measured(ctx, 2, "2:1")
	if err != nil {
		return "", err
	}
	r, err := scenario.Recovery(ctx, c, j.recovered)
	switch {
	case err != nil:
	case r.OfCopy(true) < leastOfCopy:
		err = fmt.Errorf("%v: less than %.0f %% of cp", r, 100*leastOfCopy)
	case r.Left() < leastLeft:
		err = fmt.Errorf("%v: less than %.0f %% left", r, 100*leastLeft)
	}
	return r.String(), errors.Join(err, c.Stop())
}

// durable flushes after each write, without write journals and with them.
func (j *judge) durable(ctx context.Context) (string, error) {
	plain, err := j.durableWith(ctx, "plain", 0)
	if err != nil {
		return "", err
	}
	journal, err := j.durableWith(ctx, "journal", durableJournal)
	if err == nil && journal.Volume < leastDurable {
		err = fmt.Errorf("with a journal %v: less than %d", journal, leastDurable)
	}
	return fmt.Sprintf("%v; with a journal %v", plain, journal), err
}

func (j *judge) durableWith(ctx context.Context, name string, journalMB int) (d scenario.Durable, err error) {
	dir := filepath.Join(j.dir, name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return d, err
	}
	c, err := cluster.New(ctx, j.binary, dir, cluster.Options{Servers: 3, Replicas: "3:2", Journal: journalMB})
	if err != nil {
		return d, err
	}
	if _, err := c.Run(ctx, "create", "v", "-s", "256M"); err != nil {
		return d, errors.Join(err, c.Stop())
	}
	if err := scenario.FillVolume(ctx, c.NBD("v"), 256<<20); err != nil {
		return d, errors.Join(err, c.Stop())
	}
	d, err = scenario.DurableWrites(c.NBD("v"), dir, durableEach)
	return d, errors.Join(err, c.Stop())
}

// measured starts a cluster that serves metrics.
func (j *judge) measured(ctx context.Context, servers int, replicas string) (*cluster.Cluster, error) {
	return cluster.New(ctx, j.binary, j.dir, cluster.Options{Servers: servers, Replicas: replicas, Metrics: true, Journal: j.journal})
}
