package store

import (
	"iter"
	"slices"

	"pstorage/cs/chunk"
)

// Dates says when replicas were last verified.
type Dates struct {
	Oldest int64  // unix time, of those that ever were; 0: there are none
	Never  uint64 // how many never were
}

func (d *Dates) add(when int64) {
	switch {
	case when == 0:
		d.Never++
	case d.Oldest == 0 || when < d.Oldest:
		d.Oldest = when
	}
}

// candidate is a replica to be verified.
type candidate struct {
	id   chunk.ID
	when int64
}

// Due names at most n replicas to be verified next: in turn one that never was, and the one that was longest ago. Else new data would keep a
// growing store from ever looking at old ones again.
func (s *Store) Due(n int) (due []chunk.ID) {
	var never, old []candidate
	for r := range s.verifiables() {
		if r.reported.Load() {
			continue // it is known to be bad
		}
		c := candidate{r.id, r.verified.Load()}
		switch {
		case c.when != 0:
			old = keepOldest(old, c, n)
		case len(never) < n:
			never = append(never, c)
		}
	}
	for len(due) < n && len(never)+len(old) > 0 {
		turn := s.turn.Add(1)%2 == 0
		if from := &never; len(old) == 0 || turn && len(never) > 0 {
			due, *from = append(due, (*from)[0].id), (*from)[1:]
		} else {
			due, old = append(due, old[0].id), old[1:]
		}
	}
	return due
}

// keepOldest keeps n, the oldest first.
func keepOldest(list []candidate, c candidate, n int) []candidate {
	if len(list) == n && (n == 0 || list[n-1].when <= c.when) {
		return list
	}
	i, _ := slices.BinarySearchFunc(list, c, func(a, b candidate) int { return int(min(max(a.when-b.when, -1), 1)) })
	list = slices.Insert(list, i, c)
	return list[:min(len(list), n)]
}

// verifiables are the replicas in sync that may be verified.
func (s *Store) verifiables() iter.Seq[*replica] {
	return func(yield func(*replica) bool) {
		for r := range s.replicas() {
			r.mu.RLock()
			err := r.verifiable()
			r.mu.RUnlock()
			if err == nil && !yield(r) {
				return
			}
		}
	}
}

// Dates says of each file when its replicas here were last verified.
func (s *Store) Dates() map[uint64]Dates {
	all := map[uint64]Dates{}
	for r := range s.verifiables() {
		d := all[r.id.File]
		d.add(r.verified.Load())
		all[r.id.File] = d
	}
	return all
}
