package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"pstorage/itest/scenario"
)

// Plan is what is to be done to a cluster.
type Plan struct {
	Kinds []Kind
	For   time.Duration
	Every time.Duration // from one fault to the next
	Hold  time.Duration // how long each lasts
	Seed  uint64
	Say   func(string) // told of each fault; nil: nobody
}

// Stroke is one fault that was done.
type Stroke struct {
	Kind    Kind
	Victim  string
	At, End time.Time // End: when the next began
}

// undoTime is what undoing may take: a daemon that is started looks through its chunks first.
const undoTime = 30 * time.Second

// Strike does faults, one after the other, until the time is over or stop is closed. Each is undone.
func (l *Lab) Strike(ctx context.Context, p Plan, stop <-chan struct{}) (done []Stroke, err error) {
	random := rand.New(rand.NewPCG(p.Seed, 4))
	order := random.Perm(len(p.Kinds))
	for end := time.Now().Add(p.For); time.Now().Before(end) && err == nil; {
		select {
		case <-stop:
			return done, nil
		default:
		}
		// All kinds in random order, then all again in another: none is left out by chance.
		if len(order) == 0 {
			order = random.Perm(len(p.Kinds))
		}
		kind := p.Kinds[order[0]]
		order = order[1:]
		var stroke Stroke
		stroke, err = l.strike(ctx, p, kind, random.IntN)
		done = append(done, stroke)
	}
	return done, err
}

// strike does one fault, holds it, undoes it, and waits until the interval is over.
func (l *Lab) strike(ctx context.Context, p Plan, kind Kind, dice func(int) int) (s Stroke, err error) {
	v, err := kind.choose(ctx, l, dice)
	if err != nil {
		return s, fmt.Errorf("%s: %w", kind.Name, err)
	}
	s = Stroke{Kind: kind, Victim: v.name(), At: time.Now()}
	defer func() { s.End = time.Now() }()
	if p.Say != nil {
		p.Say(fmt.Sprintf("%s: %s", kind.Name, v.name()))
	}
	err = kind.do(ctx, l, v)
	_ = scenario.Wait(ctx, p.Hold) // if the context ends, the fault is undone sooner
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	if err = errors.Join(err, kind.undo(undo, l, v)); err != nil {
		return s, fmt.Errorf("%s: %s: %w", kind.Name, v.name(), err)
	}
	_ = scenario.Wait(ctx, time.Until(s.At.Add(p.Every)))
	return s, errors.Join(ctx.Err(), l.allRun())
}

// allRun is an error if a daemon has ended by itself: those that were killed have been started again.
func (l *Lab) allRun() (err error) {
	for _, p := range l.Processes() {
		if p.Ended() {
			err = errors.Join(err, fmt.Errorf("%s has ended by itself", p.Name))
		}
	}
	return err
}
