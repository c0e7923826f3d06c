package leader

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"pstorage/meta/balance"
	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/placement"
	"pstorage/meta/topology"
)

// errShort: what is left of the cluster could not hold all replicas.
var errShort = errors.New("what would be left of the cluster cannot hold everything")

// maxRemovals is the most servers of one request.
const maxRemovals = 1000

// dropServer ends a server's part in the cluster.
func (l *Leader) dropServer(ctx context.Context, server uint32, force bool) error {
	_, err := l.consensus.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_DropServer{DropServer: &fsmpb.DropServer{Id: server, Force: force}}})
	if err != nil {
		return err
	}
	l.sessions.Remove(server)
	l.recovery.Rescan()
	return nil
}

func (l *Leader) release(ctx context.Context, server uint32, cancel bool) error {
	_, err := l.consensus.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_ReleaseServer{ReleaseServer: &fsmpb.ReleaseServer{Id: server, Cancel: cancel}}})
	if err == nil {
		l.recovery.Rescan()
	}
	return err
}

// RemoveServers takes chunk servers out of the cluster, those that are up after their replicas have been moved away.
func (l *Leader) RemoveServers(ctx context.Context, in *metapb.RemoveServersRequest) (*metapb.RemoveServersReply, error) {
	ids := slices.Compact(slices.Sorted(slices.Values(in.Ids)))
	if len(ids) == 0 || len(ids) > maxRemovals {
		return nil, Status(invalid("%d chunk servers to remove: 1 to %d", len(ids), maxRemovals))
	}
	out, err := l.removals(ids)
	if err != nil {
		return nil, Status(err)
	}
	if in.Action == metapb.RemoveServersRequest_RELEASE {
		if err := l.enough(ids); err != nil {
			return nil, Status(err)
		}
	}
	for _, r := range out.Servers {
		if err := l.removeOne(ctx, in.Action, r); err != nil {
			return nil, Status(err)
		}
	}
	return out, nil
}

func (l *Leader) removeOne(ctx context.Context, action metapb.RemoveServersRequest_Action, r *metapb.Removal) error {
	switch {
	case action == metapb.RemoveServersRequest_CHECK:
		return nil
	case action == metapb.RemoveServersRequest_CANCEL:
		return l.release(ctx, r.Id, true)
	case action == metapb.RemoveServersRequest_FORCE && r.State != metapb.Server_ACTIVE:
		l.log.Warn("a chunk server is dropped by force", "server", r.Id, "replicas", r.Replicas, "degraded", r.Degraded, "lost", r.Lost)
		return l.dropServer(ctx, r.Id, true)
	}
	return l.release(ctx, r.Id, false)
}

// removals tells what each server would leave behind.
func (l *Leader) removals(ids []uint32) (*metapb.RemoveServersReply, error) {
	out := &metapb.RemoveServersReply{}
	set := l.Settings()
	err := l.View(func(v *fsm.View) error {
		for _, id := range ids {
			switch s := v.Server(id); {
			case s == nil:
				return fmt.Errorf("chunk server %d: %w", id, fsm.ErrUnknownServer)
			case s.Dropped:
				return fmt.Errorf("chunk server %d: %w", id, fsm.ErrDropped)
			}
			r := &metapb.Removal{Id: id, State: l.sessions.StateOf(id, set.OfflineAfter)}
			l.countRemoval(v, r, ids)
			out.Servers = append(out.Servers, r)
		}
		return nil
	})
	return out, err
}

// countRemoval counts what would become of a server's chunks if all of ids were dropped now.
func (l *Leader) countRemoval(v *fsm.View, r *metapb.Removal, ids []uint32) {
	var c fsm.Chunk
	files := map[uint64]*fsm.File{}
	v.Replicas(r.Id, func(b *fsm.Block) bool {
		f := files[b.File]
		if f == nil {
			f, _ = v.File(b.File)
			files[b.File] = f
		}
		return b.Each(func(index uint32) bool {
			r.Replicas++
			if f == nil || !v.Chunk(fsm.ChunkKey{File: b.File, Index: index}, &c) {
				return true
			}
			left := slices.DeleteFunc(slices.Clone(c.Insync), func(s uint32) bool { return slices.Contains(ids, s) })
			switch {
			case len(left) == 0:
				r.Lost++
			case len(left) < int(f.Policy.Norm):
				r.Degraded++
			}
			return true
		})
	})
}

// enough tells whether the servers that stay could hold all replicas: there must be places for the norm of every file, and room for what is to move.
func (l *Leader) enough(ids []uint32) error {
	set := l.Settings()
	return l.View(func(v *fsm.View) error {
		fleet := l.sessions.Fleet(v, set)
		moved := uint64(0)
		var stay []topology.Place
		for id, s := range fleet {
			switch {
			case slices.Contains(ids, id):
				moved += s.Used
			case !s.Leaving && l.sessions.StateOf(id, set.OfflineAfter) != metapb.Server_OFFLINE:
				stay = append(stay, s.Place)
			}
		}
		if err := placesFor(v, stay, set.StrictFailureDomain); err != nil {
			return err
		}
		return roomFor(fleet, ids, moved)
	})
}

func placesFor(v *fsm.View, stay []topology.Place, strict bool) (err error) {
	v.Files(func(id uint64, n *fsmpb.Node) bool {
		f, fileErr := v.File(id)
		if fileErr != nil || n.Directory || f.Counts.Chunks == 0 {
			return true
		}
		domain := f.Policy.Domain
		if !strict {
			domain = topology.Disk
		}
		if places := topology.Spread(domain, stay); places < int(f.Policy.Norm) {
			err = fmt.Errorf("%w: %s wants %d replicas, each on another %s, and there would be %d", errShort, f.Path, f.Policy.Norm, domain, places)
		}
		return err == nil
	})
	return err
}

func roomFor(fleet balance.Fleet, ids []uint32, moved uint64) error {
	free := uint64(0)
	for _, c := range slices.DeleteFunc(fleet.Candidates(), func(c placement.Candidate) bool { return slices.Contains(ids, c.Server) }) {
		free += c.Free
	}
	if moved > free {
		return fmt.Errorf("%w: %d bytes are to be moved, and %d are free", errShort, moved, free)
	}
	return nil
}

// progress describes recovery.
func (l *Leader) progress(v *fsm.View, n fsm.Counts) *metapb.Recovery {
	p := l.recovery.Progress()
	out := &metapb.Recovery{Queued: n.Degraded, Rebuilding: uint64(p.Rebuilding), Moving: uint64(p.Moving), BytesPerSecond: p.BytesPerSecond,
		MovedBytes: p.MovedBytes, Stopped: p.Stopped, Rebuilt: p.MadeReplicas, Folding: uint64(l.fold.Queued())}
	for _, s := range v.Servers() {
		if s.Releasing {
			out.Releasing += v.Members(s.Id)
		}
	}
	if left := float64(out.Queued + out.Releasing); left > 0 && p.ReplicasPerSecond > 0 {
		out.EtaSeconds = uint64(left/p.ReplicasPerSecond) + 1
	}
	return out
}
