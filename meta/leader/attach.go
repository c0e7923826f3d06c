package leader

import (
	"context"

	"google.golang.org/grpc"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/recovery"
	"pstorage/meta/sessions"
)

// Attach serves one chunk server until its stream ends, or this server leads no more.
func (l *Leader) Attach(stream grpc.BidiStreamingServer[metapb.FromServer, metapb.ToServer]) error {
	if err := l.Verify(stream.Context()); err != nil {
		return Status(err)
	}
	return l.sessions.Serve(stream, l)
}

// Registered notes where a chunk server is, if that is new.
func (l *Leader) Registered(ctx context.Context, r *metapb.Register) error {
	var have *fsmpb.Server
	if err := l.View(func(v *fsm.View) error { have = v.Server(r.Id); return nil }); err != nil {
		return err
	}
	if have != nil && have.Address == r.Address && have.Host == r.Host && have.Incarnation == r.Incarnation {
		return nil
	}
	_, err := l.consensus.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_UpdateServer{UpdateServer: &fsmpb.UpdateServer{
		Id: r.Id, Address: r.Address, Host: r.Host, Incarnation: r.Incarnation}}})
	return err
}

// EndSyncing takes a server out of all chunks that are being rebuilt onto it.
func (l *Leader) EndSyncing(ctx context.Context, server uint32) error {
	changes, err := recovery.SyncingOn(l, server)
	if err != nil || len(changes) == 0 {
		return err
	}
	outcomes, err := l.Alter(ctx, changes)
	if err != nil {
		return err
	}
	l.recovery.Interrupt(outcomes)
	l.sessions.Publish(outcomes, true)
	return nil
}

// Trouble takes what a chunk server found out about its own replicas: they are dropped like those that a client reports, or
// as soon as that is allowed.
func (l *Leader) Trouble(s *sessions.Session, t *metapb.Trouble) {
	l.log.Warn("chunk server reports trouble", "server", s.ID, "file", t.File, "chunks", len(t.Indices), "all", t.All, "what", t.What)
	level := sessions.Missing
	if t.Corrupt {
		level = sessions.Corrupt
	}
	var bad []fsm.ChunkKey
	err := l.View(func(v *fsm.View) error {
		mark := func(k fsm.ChunkKey) bool {
			s.Suspect(k, max(level, s.Suspicion(k)))
			bad = append(bad, k)
			return true
		}
		blocks := func(b *fsm.Block) bool {
			return b.Each(func(index uint32) bool { return mark(fsm.ChunkKey{File: b.File, Index: index}) })
		}
		switch {
		case t.All && t.File == 0:
			s.Fail()
			v.Replicas(s.ID, blocks)
		case t.All:
			v.FileReplicas(s.ID, t.File, blocks)
		default:
			for _, i := range t.Indices {
				mark(fsm.ChunkKey{File: t.File, Index: i})
			}
		}
		return nil
	})
	if err != nil {
		s.End(err)
		return
	}
	l.scrub.Found(bad)
	l.recovery.Kick()
}
