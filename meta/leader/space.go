package leader

import (
	"context"

	"pstorage/meta/balance"
	"pstorage/meta/config"
	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
	"pstorage/meta/placement"
)

// Space tells how much files take, and how much more of each the servers can take. While a server is away that may soon be back, or has not said yet
// what it has, that is not known: what the others have would look like a cluster about to be full at each change of the leader.
func (l *Leader) Space(_ context.Context, in *metapb.SpaceRequest) (*metapb.SpaceReply, error) {
	if len(in.Files) > maxChunks {
		return nil, Status(invalid("%d files asked for, at most %d", len(in.Files), maxChunks))
	}
	out := &metapb.SpaceReply{}
	err := l.View(func(v *fsm.View) error {
		set := config.Parse(v.Config())
		if !l.allHeard(v, set) {
			return nil
		}
		r := newRooms(l.sessions.Fleet(v, set), set.StrictFailureDomain)
		for _, id := range in.Files {
			if f, err := v.File(id); err == nil {
				out.Files = append(out.Files, r.of(f))
			}
		}
		return nil
	})
	return out, Status(err)
}

// allHeard reports whether every server that counts has said what it has, or is given up.
func (l *Leader) allHeard(v *fsm.View, set config.Settings) bool {
	for _, s := range v.Servers() {
		session := l.sessions.Get(s.Id)
		switch {
		case s.Releasing || s.Dropped:
		case session == nil && l.sessions.StateOf(s.Id, set.OfflineAfter) != metapb.Server_OFFLINE:
			return false
		case session != nil:
			if beat, _ := session.Load(); beat == nil {
				return false
			}
		}
	}
	return true
}

// rooms finds out how much fits, once for all files of one kind.
type rooms struct {
	strict     bool
	now, empty []placement.Candidate // the servers as they are, and as if they held nothing
	known      map[fsm.Policy][2]uint64
}

func newRooms(fleet balance.Fleet, strict bool) *rooms {
	r := &rooms{strict: strict, now: fleet.Candidates(), empty: fleet.Candidates(), known: map[fsm.Policy][2]uint64{}}
	for i := range r.empty {
		r.empty[i].Free += fleet[r.empty[i].Server].Used
	}
	return r
}

func (r *rooms) of(f *fsm.File) *metapb.FileSpace {
	room, ok := r.known[f.Policy]
	if !ok {
		n, domain := placement.Replicas(r.now, f.Policy, r.strict)
		room = [2]uint64{placement.Room(r.now, domain, n), placement.Room(r.empty, domain, n)}
		r.known[f.Policy] = room
	}
	return &metapb.FileSpace{File: f.ID, Used: min(f.Counts.Chunks*f.Policy.ChunkSize, f.Node.Size), Available: room[0], Capacity: room[1]}
}
