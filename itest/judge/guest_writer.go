package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"pstorage/itest/cluster"
)

const (
	// guestWriter is what writes in a guest.
	guestWriter = labFolder + "/guest-writer.sh"
	// pathTime is how long a path may take until it has failed, or is used again: the iSCSI initiator tries every 30 s, multipathd looks every 20 s.
	pathTime = 3 * time.Minute
	// cutWrites are how many writes are done between any two steps.
	cutWrites = 20
)

// writer is a guest that writes to its disk.
type writer struct{ guest *cluster.Shell }

// number runs a command in the guest that prints one.
func (w *writer) number(ctx context.Context, command string) (int, error) {
	text, err := w.guest.Do(ctx, command)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(text)
}

// more waits until some more writes were acknowledged.
func (w *writer) more(ctx context.Context) error {
	n, err := w.number(ctx, "written")
	if err != nil {
		return err
	}
	for end := n + cutWrites; n < end && err == nil && ctx.Err() == nil; time.Sleep(time.Second) {
		n, err = w.number(ctx, "written")
	}
	return errors.Join(err, ctx.Err())
}

// wait waits until a command in the guest prints a number, and returns how long that took.
func (w *writer) wait(ctx context.Context, command string, want int) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, pathTime)
	defer cancel()
	began := time.Now()
	for {
		switch n, err := w.number(ctx, command); {
		case err != nil:
			return 0, fmt.Errorf("waiting for %s to be %d: %w", command, want, err)
		case n == want:
			return time.Since(began), nil
		}
		time.Sleep(time.Second)
	}
}
