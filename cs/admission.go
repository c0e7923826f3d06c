package cs

import (
	"errors"
	"fmt"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
	"pstorage/meta/metapb"
)

// admission receives what each replica of the inventory is, brings them there, and serves.
func (s *Server) admission(st stream) error {
	members := make(map[chunk.ID]uint64)
	for {
		m, err := st.Recv()
		if err != nil {
			return err
		}
		page := m.GetAdmission()
		switch {
		case page == nil:
			return fmt.Errorf("metadata server sent %T where an admission is due", m.GetMessage())
		case page.Refused != "":
			s.data.Admit(false)
			if page.Removed {
				return fmt.Errorf("%w: %s", ErrRemoved, page.Refused)
			}
			return fmt.Errorf("%w: %s", ErrRefused, page.Refused)
		}
		if err := s.admit(page); err != nil {
			s.data.Admit(false)
			return fmt.Errorf("admission: %w", err)
		}
		for _, c := range page.Raise {
			members[chunkOf(c)] = c.Version
		}
		if page.Last {
			s.promoteMembers(members)
			s.data.Admit(true)
			return nil
		}
	}
}

// admit applies one page: those that are not members refuse everything from now on, the others have the version.
func (s *Server) admit(page *metapb.Admission) error {
	var stale []chunk.ID
	for _, list := range [][]*metapb.ChunkAt{page.Stale, page.Unknown} {
		for _, c := range list {
			stale = append(stale, chunkOf(c))
		}
	}
	if len(stale) > 0 {
		if err := s.engine.Demote(stale); err != nil {
			return err
		}
		s.dealtWith(stale...)
	}
	return s.raiseMembers(page.Raise)
}

// raiseMembers gives members their versions, a file at a time. One that has a higher version already knows better: its holder
// has raised it since. One that cannot serve is reported, for the metadata servers to drop; it does not keep the others out.
func (s *Server) raiseMembers(members []*metapb.ChunkAt) error {
	for file, list := range byFile(members) {
		if s.engine.Raise(file, 0, list) == nil {
			continue
		}
		for _, c := range list {
			err := s.engine.Raise(file, 0, []store.ChunkVersion{c})
			switch {
			case err == nil, errors.As(err, new(store.ErrStaleVersion)), errors.Is(err, store.ErrSuspect):
			case errors.Is(err, store.ErrIO), errors.Is(err, store.ErrNoChunk), errors.Is(err, store.ErrStaleReplica):
				s.onTrouble(chunk.ID{File: file, Index: c.Index}, err.Error(), false)
			default:
				return err
			}
		}
	}
	return nil
}

func byFile(chunks []*metapb.ChunkAt) map[uint64][]store.ChunkVersion {
	m := make(map[uint64][]store.ChunkVersion)
	for _, c := range chunks {
		m[c.File] = append(m[c.File], store.ChunkVersion{Index: c.Index, Version: c.Version})
	}
	return m
}

// promoteMembers makes members of Syncing replicas that the metadata servers have committed as in sync, the Promote having been lost.
// One prepared in this run may still be under way, so it counts only once it was pulled; of others the engine knows, and
// refuses. One that is refused stays as it is: the metadata servers see that from the inventory.
func (s *Server) promoteMembers(members map[chunk.ID]uint64) {
	var late []chunk.ID
	for r := range s.engine.Inventory {
		v, member := members[r.ID]
		if member && r.State == store.Syncing && r.Version == v && s.pulls.mayPromote(r.ID, v) {
			late = append(late, r.ID)
		}
	}
	for _, id := range late {
		if err := s.engine.Promote(id, members[id]); err != nil {
			s.log.Warn("member is not in sync", "chunk", id, "version", members[id], "error", err)
			continue
		}
		s.pulls.forget(id)
	}
}
