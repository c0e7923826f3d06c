package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"pstorage/itest/scenario"
	"pstorage/itest/storm"
)

const (
	// What comes before the first reading is part of the whole, one part in so many: caches fill, and the process gets its size.
	warmPart     = 10
	shortestWarm = 30 * time.Second
	longestWarm  = 2 * time.Minute
)

// logins has initiators log in and out in all ways that there are, several at once.
func (j *judge) logins(ctx context.Context) (string, error) {
	warm := j.cycles / warmPart
	return j.storm(ctx, func(lab *storm.Lab) error {
		_, err := lab.Logins(ctx, warm, j.seed)
		return err
	}, func(lab *storm.Lab) (string, error) {
		took, err := lab.Logins(ctx, j.cycles-warm, j.seed+storm.Visitors)
		return fmt.Sprintf("%d logins by %d at a time, of %d kinds, %.0f a second", j.cycles, storm.Visitors, len(storm.Kinds()), float64(j.cycles-warm)/took.Seconds()), err
	})
}

// abuse has users write, read and verify, and others abort, reset, cut connections, read slowly and send garbage.
func (j *judge) abuse(ctx context.Context) (string, error) {
	var a *storm.Abuse
	warm := min(max(j.abuseTime/warmPart, min(shortestWarm, j.abuseTime/2)), longestWarm)
	return j.storm(ctx, func(lab *storm.Lab) error {
		a = lab.NewAbuse(j.seed)
		return a.Run(ctx, warm)
	}, func(*storm.Lab) (string, error) {
		err := a.Run(ctx, j.abuseTime-warm)
		if err == nil {
			err = a.Verify(ctx)
		}
		return a.String(), err
	})
}

// storm starts a cluster in a process with the race detector and does something to it, which is to leave nothing behind.
func (j *judge) storm(ctx context.Context, warm func(*storm.Lab) error, run func(*storm.Lab) (string, error)) (said string, err error) {
	binary, err := j.buildRaced(ctx)
	if err != nil {
		return "", err
	}
	lab, err := storm.NewLab(ctx, binary, j.dir)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, lab.Complaints()) }()
	defer func() { err = stopUp(lab.Up, err) }()
	if err := warm(lab); err != nil {
		return "", err
	}
	before, err := lab.Settled(ctx)
	if err != nil {
		return "", err
	}
	fmt.Printf("      before: %v\n", before)
	if said, err = run(lab); err != nil {
		return said, err
	}
	after, err := lab.AwaitFlat(ctx, before)
	fmt.Printf("      after:  %v\n", after)
	return said, err
}

// buildRaced builds the program with the race detector.
func (j *judge) buildRaced(ctx context.Context) (string, error) {
	if j.raced != "" {
		return j.raced, nil
	}
	if err := scenario.Need("gcc"); err != nil {
		return "", fmt.Errorf("the race detector: %w", err)
	}
	binary := filepath.Join(j.dir, "pstorage-race")
	build := exec.CommandContext(ctx, "go", "build", "-race", "-trimpath", "-o", binary, "./cli")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return binary, nil
}
