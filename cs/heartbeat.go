package cs

import (
	"pstorage/cs/wire"
	"pstorage/meta/metapb"
)

// heartbeat is the server's load and health.
func (s *Server) heartbeat() *metapb.FromServer {
	s.recount()
	total, free, used := s.engine.Space()
	st := s.data.Stats()
	h := &metapb.Heartbeat{SpaceTotal: total, SpaceFree: free, SpaceUsed: used, Replicas: s.count.replicas.Load(),
		DiskErrors: s.count.diskErrors.Load(), PulledBytes: s.count.pulled.Load()}
	for _, op := range []wire.Op{wire.OpRead, wire.OpReadLayer} {
		h.Reads += st.Ops[op].Load()
		h.ReadBytes += st.Bytes[op].Load()
	}
	for _, op := range []wire.Op{wire.OpWrite, wire.OpZero, wire.OpAtomic} {
		h.Writes += st.Ops[op].Load()
		h.WriteBytes += st.Bytes[op].Load()
	}
	for _, status := range []wire.Status{wire.IOError, wire.Corrupt, wire.NoSpace} {
		h.Errors += st.Status[status].Load()
	}
	written := s.journalStats()
	h.JournalSize, h.JournalUsed = uint64(written.Size), uint64(written.Used)
	return &metapb.FromServer{Message: &metapb.FromServer_Heartbeat{Heartbeat: h}}
}

// recount counts the replicas if there may be others than at the last count.
func (s *Server) recount() {
	if !s.count.uncounted.Swap(false) {
		return
	}
	n := uint64(0)
	for range s.engine.Inventory {
		n++
	}
	s.count.replicas.Store(n)
}
