package sessions

import (
	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
)

// FileDates says when a server's replicas of a file were last verified.
type FileDates struct {
	Oldest int64  // unix time, of those that ever were; 0: none
	Never  uint64 // how many never were
}

// maxDatedFiles bounds the files of one server whose dates are kept.
const maxDatedFiles = 1 << 20

// scrubbed takes what a server says of its verifications.
func (s *Session) scrubbed(m *metapb.Scrubbed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scrubbing = m.Total
	for _, f := range m.Files {
		d := FileDates{f.OldestUnix, f.Never}
		switch _, known := s.dates[f.File]; {
		case d == FileDates{}:
			delete(s.dates, f.File)
		case known || len(s.dates) < maxDatedFiles:
			s.dates[f.File] = d
		}
	}
}

// Scrubbing returns what verification of the server's replicas has come to, nil before it has said so.
func (s *Session) Scrubbing() *metapb.Scrubbing {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.scrubbing
}

// Dates returns when the replicas of a file were last verified, on all servers that are up.
func (r *Registry) Dates(file uint64) (d FileDates) {
	for _, s := range r.Up() {
		s.mu.Lock()
		here := s.dates[file]
		s.mu.Unlock()
		d.Never += here.Never
		if here.Oldest != 0 && (d.Oldest == 0 || here.Oldest < d.Oldest) {
			d.Oldest = here.Oldest
		}
	}
	return d
}

// Bad returns at most limit chunks whose replica here is damaged, or not there.
func (s *Session) Bad(limit int) (keys []fsm.ChunkKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for level := Missing; level < levels; level++ {
		keys = append(keys, s.suspect[level].Some(limit-len(keys))...)
	}
	return keys
}
