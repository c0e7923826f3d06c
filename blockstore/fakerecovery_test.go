package blockstore

import (
	"slices"

	"pstorage/cs/store"
	"pstorage/meta/metapb"
)

// admit lets a server that was restarted register: stale replicas are marked, members raised (R6).
func (m *fakeMeta) admit(s *fakeServer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.set(func() { s.up, s.admitted = true, true })
	for i, c := range m.chunks {
		if slices.Contains(c.Syncing, s.id) {
			m.drop(c, s.id)
		}
		s.mu.Lock()
		if r := m.replica(s, i); r != nil && slices.Contains(c.Insync, s.id) {
			r.version = max(r.version, c.Version)
		} else if r != nil {
			r.state, r.suspect, r.open = store.Stale, false, false
		}
		s.mu.Unlock()
	}
}

// resolve settles suspects (R6): dropped where another replica is good; where all are suspect and back, one becomes the source.
func (m *fakeMeta) resolve() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.chunks {
		if suspects := m.suspects(c); len(suspects) > 0 && len(suspects) < len(c.Insync) {
			for _, s := range suspects {
				m.drop(c, s.id)
			}
		} else if len(suspects) > 0 {
			m.makeSource(c, suspects)
		}
	}
}

// suspects returns those of a chunk's servers that are back with a suspect replica.
func (m *fakeMeta) suspects(c *metapb.Chunk) (list []*fakeServer) {
	for _, id := range c.Insync {
		s := m.server(id)
		s.set(func() {
			if s.up && s.admitted && m.replica(s, c.Index).suspect {
				list = append(list, s)
			}
		})
	}
	return list
}

// makeSource takes the one that has lost least (R6prefer), and counts what is lost (R9loss).
func (m *fakeMeta) makeSource(c *metapb.Chunk, all []*fakeServer) {
	source := all[0]
	for _, s := range all {
		s.set(func() {
			if !m.replica(s, c.Index).forgot {
				source = s
			}
		})
	}
	for _, s := range all {
		s.set(func() {
			if s != source {
				m.replica(s, c.Index).state = store.Stale
			}
		})
	}
	source.set(func() {
		r := m.replica(source, c.Index)
		if r.forgot {
			c.Losses++
			m.info.Losses++
			c.Version++
		}
		if c.Insync = []uint32{source.id}; len(all) > 1 {
			c.Version++
		}
		r.suspect, r.forgot, r.version = false, false, c.Version
		r.sync()
	})
}

// rebuild brings degraded chunks back to norm (R7), with pauses between the steps.
func (m *fakeMeta) rebuild(pause func()) {
	m.mu.Lock()
	var list []uint32
	if m.settledAt == m.info.Epoch {
		for i, c := range m.chunks {
			if len(c.Insync)+len(c.Syncing) < m.norm && len(c.Insync) > 0 {
				list = append(list, i)
			}
		}
	}
	m.mu.Unlock()
	for _, i := range list {
		m.rebuildChunk(i, pause)
	}
}

func (m *fakeMeta) rebuildChunk(i uint32, pause func()) {
	m.mu.Lock()
	c := m.chunks[i]
	var t *fakeServer
	for _, s := range m.servers {
		if !slices.Contains(c.Insync, s.id) && !slices.Contains(c.Syncing, s.id) && s.prepare(m.id(i), c.Version+1, store.Syncing, m.info.Epoch) {
			t = s
			break
		}
	}
	if t == nil || m.settledAt != m.info.Epoch {
		m.mu.Unlock()
		return
	}
	c.Version++
	c.Syncing = append(slices.Clone(c.Syncing), t.id)
	version := c.Version
	m.mu.Unlock()
	pause()
	if m.raise(i, version) {
		pause()
		m.pull(i, version, t, pause)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if slices.Contains(c.Syncing, t.id) {
		m.drop(c, t.id) // it came to nothing
	}
}

// raise tells all in-sync replicas of the version (R7raise).
func (m *fakeMeta) raise(i uint32, version uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.chunks[i]
	for _, id := range c.Insync {
		s := m.server(id)
		if !s.reachable() || c.Version != version {
			return false
		}
		s.set(func() { r := m.replica(s, i); r.version = max(r.version, version) })
	}
	return true
}

func (m *fakeMeta) pull(i uint32, version uint64, t *fakeServer, pause func()) {
	m.mu.Lock()
	c := m.chunks[i]
	if c.Version != version || !m.good(c.Insync[0], i) || !t.reachable() {
		m.mu.Unlock()
		return
	}
	from := m.server(c.Insync[0])
	var image fakeReplica
	from.set(func() { image = m.replica(from, i).image() })
	m.mu.Unlock()
	pause()
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.Version != version || !t.reachable() || !slices.Contains(c.Syncing, t.id) {
		return
	}
	t.set(func() { m.replica(t, i).take(image) })
	c.Insync = append(slices.Clone(c.Insync), t.id)
	c.Syncing = slices.DeleteFunc(slices.Clone(c.Syncing), func(o uint32) bool { return o == t.id })
}

// take makes the replica equal to an image, but for the blocks written meanwhile (R7fresh).
func (r *fakeReplica) take(image fakeReplica) {
	r.takeBelow(image)
	r.blocks = laid(image.blocks, r.blocks, r.fresh)
	r.sync()
	r.state, r.open = store.InSync, true
}
