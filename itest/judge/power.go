package main

import (
	"context"
	"fmt"

	"pstorage/itest/scenario"
)

// labFolder has the guest's scripts.
const labFolder = "itest/lab"

// power cuts the power of a guest in which a whole cluster runs.
func (j *judge) power(ctx context.Context) (string, error) {
	if err := guestImage(ctx); err != nil {
		return "", err
	}
	found, err := scenario.PowerCut(ctx, j.binary, labFolder, j.dir, j.cuts, j.seed, func(line string) { fmt.Println("      " + line) })
	return fmt.Sprintf("all replicas' power cut %d times during writes, everything flushed was there; %d replicas of %d chunks are identical", j.cuts, found.Replicas, found.Layers), err
}
