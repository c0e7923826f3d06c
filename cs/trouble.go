package cs

import (
	"pstorage/cs/chunk"
	"pstorage/meta/metapb"
)

// trouble is a replica that the server itself found bad.
type trouble struct {
	what    string
	corrupt bool
}

// onTrouble notes a bad replica, to be reported now and with each attachment until it is dealt with. It does not block.
func (s *Server) onTrouble(id chunk.ID, what string, corrupt bool) {
	s.log.Error("replica is bad", "chunk", id, "what", what, "corrupt", corrupt)
	if !corrupt {
		s.count.diskErrors.Add(1)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.troubles[id] = trouble{what, corrupt}
	s.unsaid = append(s.unsaid, id)
	s.tell()
}

// tell wakes the sender; mu is held.
func (s *Server) tell() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// repeatTroubles has all troubles reported anew: the attachment is new.
func (s *Server) repeatTroubles() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsaid = s.unsaid[:0]
	for id := range s.troubles {
		s.unsaid = append(s.unsaid, id)
	}
	if len(s.unsaid) > 0 {
		s.tell()
	}
}

// dealtWith forgets troubles of replicas that are being made anew, demoted or removed.
func (s *Server) dealtWith(ids ...chunk.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.troubles, id)
	}
}

// unsaidTroubles takes what is to be reported.
func (s *Server) unsaidTroubles() (out []*metapb.FromServer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.unsaid {
		t, ok := s.troubles[id]
		if !ok {
			continue
		}
		out = append(out, &metapb.FromServer{Message: &metapb.FromServer_Trouble{Trouble: &metapb.Trouble{
			File: id.File, Indices: []uint32{id.Index}, What: t.what, Corrupt: t.corrupt}}})
	}
	s.unsaid = s.unsaid[:0]
	return out
}
