// Package search walks all states that a system can reach, breadth first, so that the first violation found is a shortest one.
//
// # DESIGN
//
// A state is visited once. Of those seen only a hash of 64 bits is kept (two states could collide and one be missed: for 50 million states
// the chance is about one in 15,000), and for the way back its parent's number and which of the parent's steps led to it: some 14
// bytes a state. The states of the level being walked, and of the next, are kept encoded.
//
// Invariant: states are numbered in the order in which they were found, so those of a level have consecutive numbers.
package search

import (
	"hash/maphash"
	"time"
)

// Key is a state, encoded.
type Key [8]uint64

// Step is one thing that can happen in a state, and the state after it.
type Step[S any] struct {
	Label
	Next S
}

// System is what is searched.
type System[S any] interface {
	Start() S
	// Steps appends everything that can happen.
	Steps(s *S, out []Step[S]) []Step[S]
	// Prune takes out of a state what makes no difference.
	Prune(s *S)
	// Canonical replaces the state by the one that stands for all that differ from it in names only.
	Canonical(s *S)
	Encode(s *S) Key
	Decode(k Key) S
	// Violation says what is wrong with a state, or nothing.
	Violation(s *S) string
}

// Progress is how far a search has come.
type Progress struct {
	Depth   int // steps from the start
	States  int
	Waiting int // found, and not looked at
}

// Result is what a search has found.
type Result struct {
	States    int
	Depth     int
	Complete  bool   // every state was looked at
	Violation string // "" if there is none
	Trace     []string
}

// Options bound a search and tell how it goes.
type Options struct {
	MaxStates int
	Progress  func(Progress) // called every few seconds, if not nil
}

// progressEvery is how often Progress is called.
const progressEvery = 5 * time.Second

// Run searches until a violation is found, all is seen, or the bound is reached.
func Run[S any](sys System[S], o Options) Result {
	e := &explorer[S]{sys: sys, o: o, seed: maphash.MakeSeed(), report: time.Now().Add(progressEvery)}
	start := sys.Start()
	level := &keys{}
	e.found(&start, level, 0, 0)
	for level.len() > 0 && e.result.Violation == "" && !e.full() {
		next := &keys{}
		e.walk(level, next)
		level = next
	}
	e.result.States = e.history.len()
	e.result.Complete = level.len() == 0 && !e.full()
	return e.result
}

type explorer[S any] struct {
	sys     System[S]
	o       Options
	seed    maphash.Seed
	seen    set
	history history
	steps   []Step[S]
	report  time.Time
	result  Result
}

func (e *explorer[S]) full() bool { return e.o.MaxStates > 0 && e.history.len() >= e.o.MaxStates }

// walk looks at every state of a level; those that it finds are the next one.
func (e *explorer[S]) walk(level, next *keys) {
	e.result.Depth++
	first := e.history.len() - level.len()
	for i := range level.len() {
		s := e.sys.Decode(level.at(i))
		e.steps = e.sys.Steps(&s, e.steps[:0])
		for k := range e.steps {
			if e.found(&e.steps[k].Next, next, first+i, k); e.result.Violation != "" {
				return
			}
		}
		if e.o.Progress != nil && i%1024 == 0 && time.Now().After(e.report) {
			e.report = time.Now().Add(progressEvery)
			e.o.Progress(Progress{e.result.Depth, e.history.len(), level.len() - i + next.len()})
		}
		if e.full() {
			return
		}
	}
}

// found takes a state that step k of the state of that number leads to.
func (e *explorer[S]) found(s *S, next *keys, parent, k int) {
	why := e.sys.Violation(s)
	e.sys.Prune(s)
	key := e.canonical(*s)
	if !e.seen.add(maphash.Comparable(e.seed, key)) {
		return
	}
	e.history.add(parent, k)
	next.add(key)
	if why != "" {
		e.result.Trace, e.result.Violation = e.trace(e.history.len() - 1)
	}
}

// trace tells the way to a state, and what is wrong with it. Names change when a state is replaced by the one that stands for it; what is told is one run with the
// same names throughout.
func (e *explorer[S]) trace(last int) (out []string, why string) {
	told := e.sys.Start()
	e.sys.Prune(&told)
	key := e.canonical(told)
	for _, k := range e.history.way(last) {
		s := e.sys.Decode(key)
		s = e.sys.Steps(&s, nil)[k].Next
		e.sys.Prune(&s)
		key = e.canonical(s)
		step := e.same(&told, key)
		out, told, why = append(out, step.String()), step.Next, e.sys.Violation(&step.Next)
		e.sys.Prune(&told)
	}
	return out, why
}

// same finds the step that leads to a state which the key stands for. There is one from every state that looks alike.
func (e *explorer[S]) same(from *S, key Key) Step[S] {
	for _, step := range e.sys.Steps(from, nil) {
		n := step.Next
		if e.sys.Prune(&n); e.canonical(n) == key {
			return step
		}
	}
	panic("states that look alike do not have the same steps")
}

func (e *explorer[S]) canonical(s S) Key {
	e.sys.Canonical(&s)
	return e.sys.Encode(&s)
}
