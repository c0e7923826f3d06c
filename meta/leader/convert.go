package leader

import (
	"encoding/hex"
	"time"

	"github.com/google/uuid"

	"pstorage/meta/config"
	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
)

func attributesIn(a *metapb.Attributes) *fsmpb.Attributes {
	return &fsmpb.Attributes{Norm: a.GetReplicasNorm(), Min: a.GetReplicasMin(), FailureDomain: a.GetFailureDomain(), ChunkSize: a.GetChunkSize(), Tier: a.GetTier()}
}

func attributesOut(a *fsmpb.Attributes) *metapb.Attributes {
	return &metapb.Attributes{ReplicasNorm: a.GetNorm(), ReplicasMin: a.GetMin(), FailureDomain: a.GetFailureDomain(), ChunkSize: a.GetChunkSize(), Tier: a.GetTier()}
}

// info describes a file or directory to clients. lost is the number of its chunks that nobody can serve now.
func info(f *fsm.File, lost uint64) *metapb.FileInfo {
	out := &metapb.FileInfo{
		Path: f.Path, Directory: f.Node.Directory, Size: f.Node.Size, Own: attributesOut(f.Node.Own),
		Effective: &metapb.Attributes{ReplicasNorm: f.Policy.Norm, ReplicasMin: f.Policy.Min, FailureDomain: f.Policy.Domain,
			ChunkSize: f.Policy.ChunkSize, Tier: f.Policy.Tier},
		Layers: f.Node.Layers, Epoch: f.Node.Epoch, Clean: f.Node.Clean, CreatedUnix: f.Node.Created,
		Chunks: f.Counts.Chunks, DegradedChunks: f.Counts.Degraded, UnwritableChunks: f.Counts.Unwritable, LostChunks: lost,
		Losses: f.Node.Losses, LostBlocks: f.Node.LostBlocks,
	}
	if !f.Node.Directory {
		out.Id, out.Identity, out.Snapshots = f.ID, f.Identity(), uint64(f.Snapshots)
		out.Own.ChunkSize = f.Node.ChunkSize
	}
	if o := f.Over; o != nil {
		out.Over = &metapb.Over{Snapshot: o.Id, File: o.File, Layer: o.Layer, Size: o.Size, Path: o.Path, Name: fsm.SnapshotLabel(o.Snapshot)}
		out.Flattening = f.Node.Flattening
	}
	if i := f.Node.Incoming; i != nil {
		out.Incoming = &metapb.Incoming{Snapshot: i.Snapshot, Base: i.Base, Size: i.Size, Upto: i.Upto}
	}
	if s := f.Node.Schedule; s != nil {
		out.Schedule = &metapb.Schedule{Hourly: s.Hourly, Daily: s.Daily, Weekly: s.Weekly}
	}
	for _, q := range f.Quotas {
		out.Quotas = append(out.Quotas, &metapb.Quota{Path: q.Path, Limit: q.Limit, Used: q.Used})
	}
	if h := f.Node.Holder; h != nil {
		out.Holder, out.HolderHost = clientName(h.Id), h.Host
	}
	return out
}

func incomingIn(i *metapb.Incoming) *fsmpb.Incoming {
	if i == nil {
		return nil
	}
	return &fsmpb.Incoming{Snapshot: i.Snapshot, Base: i.Base, Size: i.Size, Upto: i.Upto}
}

func clientName(id []byte) string {
	if u, err := uuid.FromBytes(id); err == nil {
		return u.String()
	}
	return hex.EncodeToString(id)
}

func chunkOut(index uint32, c *fsm.Chunk) *metapb.Chunk {
	return &metapb.Chunk{Index: index, Version: c.Version, Insync: append([]uint32(nil), c.Insync...), Syncing: append([]uint32(nil), c.Syncing...), Losses: c.Losses}
}

// server describes a chunk server.
func (l *Leader) server(v *fsm.View, s *fsmpb.Server, set config.Settings) *metapb.Server {
	out := &metapb.Server{Id: s.Id, Address: s.Address, Host: s.Host, State: l.sessions.StateOf(s.Id, set.OfflineAfter),
		Releasing: s.Releasing, Location: s.Location, Tier: s.Tier}
	if s.Releasing || s.Dropped {
		out.Members = v.Members(s.Id)
	}
	if s.Dropped {
		out.State = metapb.Server_DROPPED
	}
	session := l.sessions.Get(s.Id)
	if session == nil {
		return out
	}
	out.Version, out.Suspects, out.Scrubbing = session.Version, uint64(session.SuspectCount()), session.Scrubbing()
	if b, _ := session.Load(); b != nil {
		out.SpaceTotal, out.SpaceFree, out.SpaceUsed, out.Replicas = b.SpaceTotal, b.SpaceFree, b.SpaceUsed, b.Replicas
		out.Reads, out.Writes, out.ReadBytes, out.WriteBytes, out.Errors = b.Reads, b.Writes, b.ReadBytes, b.WriteBytes, b.Errors
		out.DiskErrors, out.PulledBytes = b.DiskErrors, b.PulledBytes
		out.JournalSize, out.JournalUsed = b.JournalSize, b.JournalUsed
	}
	return out
}

// dated adds to a file's description when its replicas were last verified.
func (l *Leader) dated(out *metapb.FileInfo) *metapb.FileInfo {
	if out != nil && out.Id != 0 {
		d := l.sessions.Dates(out.Id)
		out.VerifiedUnix, out.NeverVerified = d.Oldest, d.Never
	}
	return out
}

// addScrubbing adds up what servers say.
func addScrubbing(sum, s *metapb.Scrubbing) {
	sum.Replicas += s.GetReplicas()
	sum.Bytes += s.GetBytes()
	sum.Bad += s.GetBad()
	sum.Mended += s.GetMended()
	sum.Never += s.GetNever()
	if when := s.GetOldestUnix(); when != 0 && (sum.OldestUnix == 0 || when < sum.OldestUnix) {
		sum.OldestUnix = when
	}
}

// servers describes all chunk servers.
func (l *Leader) servers(v *fsm.View) (out []*metapb.Server) {
	set := config.Parse(v.Config())
	for _, s := range v.Servers() {
		out = append(out, l.server(v, s, set))
	}
	return out
}

func unixNow() int64 { return time.Now().Unix() }
