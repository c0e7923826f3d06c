package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"pstorage/itest/cluster"
	"pstorage/itest/faults"
)

const (
	faultEvery = 10 * time.Second
	faultHold  = 6500 * time.Millisecond // longer than a chunk server may be silent
	// faultBytes is what fio writes in a round: rounds are to be shorter than the run.
	faultBytes = 256 << 20
)

// faults kills, stops and cuts off one server after the other.
func (j *judge) faults(ctx context.Context) (string, error) {
	lab, err := faults.NewLab(ctx, j.binary, j.dir, cluster.Options{MDS: j.mds, Servers: 5, Replicas: "3:2"})
	if err != nil {
		return "", err
	}
	o, err := lab.Endure(ctx, faults.Plan{
		Kinds: faults.Kinds(j.mds), For: j.faultTime, Every: faultEvery, Hold: faultHold, Seed: j.seed,
		Say: func(line string) { fmt.Println("      " + time.Now().Format(time.TimeOnly) + " " + line) },
	}, faultBytes)
	err = errors.Join(err, lab.Close())
	if len(o.Stalls) > 0 {
		err = errors.Join(err, faults.Table(os.Stdout, o.Stalls), o.Over())
	}
	return fmt.Sprintf("%d MDS, %d CS, replicas=3:2: %v", j.mds, len(lab.CS), o), err
}
