package scenario

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sort"
	"strings"

	"pstorage/cs/store"
	"pstorage/itest/cluster"
)

// Compared is what Identical went through.
type Compared struct{ Layers, Replicas int }

// Identical checks stopped chunk servers' folders offline: every block matches its checksum, and all replicas of a chunk that are in sync
// are equal, free of suspicion, and at least as many as wanted. Those that are not in sync wait to be removed. Versions may differ: a replica
// may have been about to be moved.
func Identical(ctx context.Context, binary string, dirs []string, wanted int) (found Compared, err error) {
	replicas := map[string][]store.LayerSum{}
	for _, dir := range dirs {
		if err := sound(ctx, binary, dir); err != nil {
			return found, err
		}
		sums, err := sumsOf(ctx, binary, dir)
		if err != nil {
			return found, err
		}
		for _, sum := range sums {
			if sum.State == store.InSync.String() {
				key := fmt.Sprintf("chunk %s layer %d", sum.Chunk, sum.Layer)
				replicas[key] = append(replicas[key], sum)
			}
		}
	}
	found.Layers = len(replicas)
	var wrong []string
	for key, list := range replicas {
		found.Replicas += len(list)
		if different(list) || len(list) < wanted {
			wrong = append(wrong, fmt.Sprintf("%s: %v", key, list))
		}
	}
	if sort.Strings(wrong); len(wrong) > 0 {
		return found, fmt.Errorf("%d of %d chunks have replicas that differ, or too few of them:\n%s", len(wrong), len(replicas), strings.Join(wrong[:min(len(wrong), 10)], "\n"))
	}
	return found, nil
}

func different(list []store.LayerSum) bool {
	for _, sum := range list {
		if sum.Sum != list[0].Sum || sum.Suspect {
			return true
		}
	}
	return false
}

// sound runs cs-check.
func sound(ctx context.Context, binary, dir string) error {
	out, err := run(ctx, binary, "cs-check", "--json", dir)
	if err != nil {
		return err
	}
	var report struct{ Damaged int }
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		return fmt.Errorf("cs-check: %w", err)
	}
	if report.Damaged > 0 {
		return fmt.Errorf("%s: %d damaged", dir, report.Damaged)
	}
	return nil
}

func sumsOf(ctx context.Context, binary, dir string) (sums []store.LayerSum, err error) {
	out, err := run(ctx, binary, "cs-dump", "--sums", "--json", dir)
	if err != nil {
		return nil, err
	}
	return sums, json.Unmarshal([]byte(out), &sums)
}

// StopIdentical waits until the cluster is whole, stops it, front ends first, and compares its replicas.
func StopIdentical(ctx context.Context, c *cluster.Cluster, wanted int) (found Compared, err error) {
	if err := c.WaitWhole(ctx, wholeTime); err != nil {
		return found, err
	}
	if _, err := c.Targets.Stop(); err != nil {
		return found, err
	}
	// Closing a volume may have been the first time that a server's failure was noticed.
	if err := c.WaitWhole(ctx, wholeTime); err != nil {
		return found, err
	}
	dirs := make([]string, len(c.CS))
	var errs []error
	for _, p := range c.MDS { // first, or they would move and drop replicas while the others go
		_, err := p.Stop()
		errs = append(errs, err)
	}
	for i, p := range c.CS {
		dirs[i] = c.CSDir(i)
		_, err := p.Stop()
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return found, err
	}
	return Identical(ctx, c.Binary, dirs, wanted)
}
