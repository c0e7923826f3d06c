package faults

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"pstorage/itest/cluster"
	"pstorage/itest/hosts"
)

// Kind is a sort of fault.
type Kind struct {
	Name  string
	Limit time.Duration // of the longest stall; 0: none is set
	on    role
	do    func(context.Context, *Lab, *victim) error
	undo  func(context.Context, *Lab, *victim) error
}

// role is whom a fault hits.
type role int

const (
	anyCS role = iota
	leader
	follower
)

// victim is a server that a fault hits.
type victim struct {
	mds bool
	i   int
}

func (v *victim) name() string {
	if v.mds {
		return fmt.Sprintf("mds%d", v.i+1)
	}
	return fmt.Sprintf("cs%d", v.i+1)
}

func (v *victim) process(l *Lab) *cluster.Process {
	if v.mds {
		return l.MDS[v.i]
	}
	return l.CS[v.i]
}

// Limits of the stalls that users see.
const (
	killLimit   = time.Second
	stopLimit   = 8 * time.Second
	leaderLimit = 5 * time.Second
)

// Kinds are all the faults there are; those of metadata servers need three of these.
func Kinds(mds int) []Kind {
	kinds := []Kind{
		{"kill CS", killLimit, anyCS, kill, restart},
		{"stop CS", stopLimit, anyCS, stop, resume},
		{"cut CS", stopLimit, anyCS, cut(hosts.Both), heal},
		{"cut CS inward", stopLimit, anyCS, cut(hosts.In), heal},
		{"cut CS outward", stopLimit, anyCS, cut(hosts.Out), heal},
		{"slow link of CS", stopLimit, anyCS, slow, fast},
	}
	if mds >= 3 {
		kinds = append(kinds,
			Kind{"kill MDS leader", leaderLimit, leader, kill, restart},
			Kind{"stop MDS leader", stopLimit, leader, stop, resume},
			Kind{"cut MDS leader", stopLimit, leader, cut(hosts.Both), heal},
			Kind{"kill MDS follower", leaderLimit, follower, kill, restart})
	}
	return kinds
}

func kill(_ context.Context, l *Lab, v *victim) error {
	v.process(l).Kill()
	return nil
}

func restart(ctx context.Context, l *Lab, v *victim) error {
	if v.mds {
		return l.StartMDS(ctx, v.i)
	}
	return l.StartCS(ctx, v.i)
}

func stop(_ context.Context, l *Lab, v *victim) error { return v.process(l).Pause() }
func resume(_ context.Context, l *Lab, v *victim) error {
	return v.process(l).Signal(syscall.SIGCONT)
}

func cut(w hosts.Way) func(context.Context, *Lab, *victim) error {
	return func(_ context.Context, l *Lab, v *victim) error { return l.Host(v.name()).Cut(w) }
}

func heal(_ context.Context, l *Lab, _ *victim) error { return l.Heal() }

// slowRate is what a bad cable leaves of a link.
const slowRate = "4mbit"

func slow(_ context.Context, l *Lab, v *victim) error { return l.Host(v.name()).Slow(slowRate) }
func fast(_ context.Context, l *Lab, v *victim) error { return l.Host(v.name()).Fast() }

// choose finds a victim for a fault; dice chooses among several.
func (k Kind) choose(ctx context.Context, l *Lab, dice func(int) int) (*victim, error) {
	if k.on == anyCS {
		return &victim{i: dice(len(l.CS))}, nil
	}
	first, err := l.Leader(ctx)
	if err != nil {
		return nil, err
	}
	if k.on == leader {
		return &victim{mds: true, i: first}, nil
	}
	if len(l.MDS) < 2 {
		return nil, errors.New("there is one metadata server only")
	}
	return &victim{mds: true, i: (first + 1 + dice(len(l.MDS)-1)) % len(l.MDS)}, nil
}
