package leader

import (
	"context"
	"sync"
	"time"

	"pstorage/meta/config"
	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
)

// maxParameters is the most parameters of one SetConfig.
const maxParameters = 100

// Status describes the cluster.
func (l *Leader) Status(context.Context, *metapb.StatusRequest) (*metapb.StatusReply, error) {
	out := &metapb.StatusReply{Mds: l.consensus.Metadata()}
	err := l.View(func(v *fsm.View) error {
		out.Cluster, out.ClusterId = v.Cluster()
		out.Servers, out.Config = l.servers(v), config.All(v.Config())
		out.Scrubbing, out.Repaired, out.Awaiting = &metapb.Scrubbing{}, l.scrub.Repaired(), l.scrub.Awaiting()
		for _, s := range out.Servers {
			addScrubbing(out.Scrubbing, s.Scrubbing)
		}
		var n fsm.Counts
		out.Files, out.Size, n = v.Totals()
		out.Chunks, out.Degraded, out.Unwritable, out.Syncing = n.Chunks, n.Degraded, n.Unwritable, n.Syncing
		out.Recovery = l.progress(v, n)
		out.Healthy = n.Chunks - n.Degraded
		for _, lost := range l.lost(v) {
			out.Lost += lost
		}
		clients := map[string]bool{}
		v.Files(func(_ uint64, node *fsmpb.Node) bool {
			out.Losses += node.Losses
			out.LostBlocks += node.LostBlocks
			if node.Holder != nil && !yields(node.Holder) {
				clients[string(node.Holder.Id)] = true
			}
			return true
		})
		out.Clients = uint64(len(clients))
		return nil
	})
	return out, Status(err)
}

// SetConfig sets parameters.
func (l *Leader) SetConfig(ctx context.Context, in *metapb.SetConfigRequest) (*metapb.SetConfigReply, error) {
	if len(in.Set) > maxParameters {
		return nil, Status(invalid("%d parameters at once", len(in.Set)))
	}
	for name, value := range in.Set {
		if err := config.Check(name, value); err != nil {
			return nil, Status(err)
		}
	}
	if len(in.Set) > 0 {
		_, err := l.consensus.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_SetConfig{SetConfig: &fsmpb.SetConfig{Set: in.Set}}})
		if err != nil {
			return nil, Status(err)
		}
		l.recovery.Rescan()
	}
	out := &metapb.SetConfigReply{}
	err := l.View(func(v *fsm.View) error { out.Config = config.All(v.Config()); return nil })
	return out, Status(err)
}

// CreateServer numbers a new chunk server.
func (l *Leader) CreateServer(ctx context.Context, in *metapb.CreateServerRequest) (*metapb.CreateServerReply, error) {
	s, err := propose[*fsmpb.Server](ctx, l, &fsmpb.Command{Command: &fsmpb.Command_CreateServer{CreateServer: &fsmpb.CreateServer{
		Address: in.Address, Host: in.Host, Created: unixNow(), Location: in.Location, Tier: in.Tier}}})
	if err != nil {
		return nil, Status(err)
	}
	out := &metapb.CreateServerReply{Id: s.Id}
	err = l.View(func(v *fsm.View) error { out.Cluster, out.ClusterId = v.Cluster(); return nil })
	return out, Status(err)
}

// lostCache keeps the last count of chunks that nobody can serve: counting walks all that the servers hold that are down.
type lostCache struct {
	mu     sync.Mutex
	byFile map[uint64]uint64
	until  time.Time
}

const (
	// lostAge is how old a count may be; lostShare, how much of the time counting may take.
	lostAge   = time.Second
	lostShare = 20
)

// lost counts, by file, the chunks of which no in-sync replica can serve now.
func (l *Leader) lost(v *fsm.View) map[uint64]uint64 {
	c := &l.lostChunks
	c.mu.Lock()
	defer c.mu.Unlock()
	if start := time.Now(); !start.Before(c.until) {
		c.byFile = l.countLost(v)
		c.until = time.Now().Add(max(lostAge, time.Since(start)*lostShare))
	}
	return c.byFile
}

func (l *Leader) countLost(v *fsm.View) map[uint64]uint64 {
	out := map[uint64]uint64{}
	var c fsm.Chunk
	for _, s := range v.Servers() {
		count := func(k fsm.ChunkKey) bool {
			// Each lost chunk is found once: with the first of its servers.
			if v.Chunk(k, &c) && len(c.Insync) > 0 && c.Insync[0] == s.Id && !l.servable(k, &c) {
				out[k.File]++
			}
			return true
		}
		if session := l.sessions.Get(s.Id); session != nil {
			for _, k := range session.Suspects(maxInventoryKeys) {
				count(k)
			}
			continue
		}
		v.Replicas(s.Id, func(b *fsm.Block) bool {
			return b.Each(func(index uint32) bool { return count(fsm.ChunkKey{File: b.File, Index: index}) })
		})
	}
	return out
}

// maxInventoryKeys bounds a list of suspects.
const maxInventoryKeys = 1 << 22

func (l *Leader) servable(k fsm.ChunkKey, c *fsm.Chunk) bool {
	for _, s := range c.Insync {
		if l.sessions.Sound(s, k) {
			return true
		}
	}
	return false
}
