package faults

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"pstorage/itest/scenario"
)

// Outcome of Endure.
type Outcome struct {
	Stalls   []Stalls
	Faults   int
	Fio      scenario.FioResult
	Rounds   int // of fio
	Requests int // of the probe
	Compared scenario.Compared
}

const (
	probeBytes = 64 << 20 // in so many chunks that each fault of a chunk server hits some
	probeChunk = 1 << 20
	probeSize  = 16 << 30 // room for chunks to allocate
)

// Endure does faults to a lab while fio and a probe work on volumes of their own, waits until the cluster is whole again, stops it and
// compares all replicas. fio writes so many bytes a round.
func (l *Lab) Endure(ctx context.Context, p Plan, bytes int64) (o Outcome, err error) {
	for _, volume := range [][]string{
		{"create", "fio", "-s", strconv.FormatInt(2*bytes, 10), "--chunk-size", "16M"},
		{"create", "probe", "-s", strconv.Itoa(probeSize), "--chunk-size", strconv.Itoa(probeChunk)},
	} {
		if _, err := l.Run(ctx, volume...); err != nil {
			return o, err
		}
	}
	probe, err := StartProbe(l.NBD("probe"), probeBytes, probeChunk, p.Seed)
	if err != nil {
		return o, err
	}
	done, err := l.underLoad(ctx, p, bytes, &o)
	o.Faults = len(done)
	err = errors.Join(err, probe.Stop())
	o.Requests, o.Stalls = probe.Requests, Judge(done, probe)
	if err != nil {
		return o, err
	}
	o.Compared, err = scenario.StopIdentical(ctx, l.Cluster, 3)
	return o, err
}

// underLoad does the faults while fio runs; each of the two ends the other when it fails.
func (l *Lab) underLoad(ctx context.Context, p Plan, bytes int64, o *Outcome) (done []Stroke, err error) {
	overFio, overFaults := make(chan struct{}), make(chan struct{})
	var fioErr error
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(overFio)
		o.Fio, o.Rounds, fioErr = scenario.FioUntil(ctx, l.NBD("fio"), l.Dir, bytes, overFaults)
	})
	done, err = l.Strike(ctx, p, overFio)
	close(overFaults)
	wg.Wait()
	return done, errors.Join(err, fioErr)
}

// String tells the outcome in a line.
func (o Outcome) String() string {
	return fmt.Sprintf("%d faults, fio wrote %d MiB in %d rounds and the probe did %d requests without an error; %d replicas of %d chunks are identical",
		o.Faults, o.Fio.Written>>20, o.Rounds, o.Requests, o.Compared.Replicas, o.Compared.Layers)
}

// Over returns an error that names the kinds of fault whose stalls were too long.
func (o Outcome) Over() error {
	var errs []error
	for _, s := range o.Stalls {
		for _, w := range s.Waits {
			if s.Kind.Limit > 0 && w.Took > s.Kind.Limit {
				errs = append(errs, fmt.Errorf("%s: %v, over %s", s.Kind.Name, w, seconds(s.Kind.Limit)))
			}
		}
	}
	return errors.Join(errs...)
}
