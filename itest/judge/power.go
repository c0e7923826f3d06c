package main

import (
	"context"
	"fmt"
	"os/exec"

	"pstorage/itest/scenario"
)

// labFolder has the guest's scripts.
const labFolder = "itest/lab"

// power cuts the power of a guest in which a whole cluster runs.
func (j *judge) power(ctx context.Context) (string, error) {
	// Before the first boot: that has to be ready soon.
	if out, err := exec.CommandContext(ctx, guestScript, "image").CombinedOutput(); err != nil {
		return "", fmt.Errorf("guest's image: %w: %s", err, out)
	}
	found, err := scenario.PowerCut(ctx, j.binary, labFolder, j.dir, j.cuts, j.seed, func(line string) { fmt.Println("      " + line) })
	return fmt.Sprintf("all replicas' power cut %d times during writes, everything flushed was there; %d replicas of %d chunks are identical", j.cuts, found.Replicas, found.Layers), err
}
