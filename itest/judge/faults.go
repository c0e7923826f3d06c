package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"time"

	"pstorage/itest/cluster"
	"pstorage/itest/faults"
)

const (
	faultEvery = 10 * time.Second
	faultRest  = faultEvery - 6500*time.Millisecond // at least, from the end of a fault to the next
	// faultBytes is what fio writes in a round: rounds are to be shorter than the run.
	faultBytes = 256 << 20
)

// faultPlan is what the flags ask for.
func (j *judge) faultPlan() (p faults.Plan, err error) {
	match, err := regexp.Compile(j.kinds)
	if err != nil {
		return p, err
	}
	p = faults.Plan{For: j.faultTime, Every: max(faultEvery, j.faultHold+faultRest), Hold: j.faultHold, Seed: j.seed}
	p.Say = func(line string) { fmt.Println("      " + time.Now().Format(time.TimeOnly) + " " + line) }
	for _, kind := range faults.Kinds(j.mds) {
		if match.MatchString(kind.Name) {
			p.Kinds = append(p.Kinds, kind)
		}
	}
	if len(p.Kinds) == 0 {
		err = fmt.Errorf("-kinds %s: no kind of fault is called that", j.kinds)
	}
	return p, err
}

// faults kills, stops and cuts off one server after the other.
func (j *judge) faults(ctx context.Context) (string, error) {
	plan, err := j.faultPlan()
	if err != nil {
		return "", err
	}
	lab, err := faults.NewLab(ctx, j.binary, j.dir, cluster.Options{MDS: j.mds, Servers: 5, Replicas: "3:2", Journal: j.journal})
	if err != nil {
		return "", err
	}
	o, err := lab.Endure(ctx, plan, faultBytes)
	err = errors.Join(err, lab.Close())
	if len(o.Stalls) > 0 {
		err = errors.Join(err, faults.Table(os.Stdout, o.Stalls), o.Over())
	}
	return fmt.Sprintf("%d MDS, %d CS, replicas=3:2: %v", j.mds, len(lab.CS), o), err
}
