package recovery

import (
	"cmp"
	"context"
	"time"

	"pstorage/meta/config"
	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
)

// dropOffline lets servers go that have been away for too long: their replicas are to be rebuilt elsewhere.
func (e *Engine) dropOffline(ctx context.Context) error {
	if time.Now().Before(e.nextOffline) {
		return nil
	}
	set := e.leader.Settings()
	var drops changes
	err := e.leader.View(func(v *fsm.View) error {
		gone := droppedServers(v)
		offline := e.offline(v, set.OfflineAfter)
		if !e.isDisaster(v, set) { // what comes back is worth more than copies
			gone = append(gone, offline...)
		}
		e.anyOffline = len(gone) > 0
		for _, server := range gone {
			e.dropServer(v, server, &drops)
		}
		return nil
	})
	if err != nil || drops.count == 0 {
		if e.anyOffline {
			e.nextOffline = time.Now().Add(offlineEvery)
		}
		return err
	}
	outcomes, err := e.leader.Alter(ctx, drops.order)
	if err != nil {
		return err
	}
	e.sessions.Publish(outcomes, true)
	e.Changed(outcomes, false)
	return nil
}

// isDisaster tells whether so many servers are offline, or hosts with all of theirs, that this is no failure to be answered with copies.
func (e *Engine) isDisaster(v *fsm.View, set config.Settings) bool {
	return set.MaxOffline > 0 && len(e.offline(v, set.OfflineAfter)) > set.MaxOffline ||
		set.MaxOfflineHosts > 0 && e.offlineHosts(v, set.OfflineAfter) > set.MaxOfflineHosts
}

// offlineHosts counts the hosts of which every server is offline.
func (e *Engine) offlineHosts(v *fsm.View, after time.Duration) (n int) {
	up := map[string]bool{}
	for _, s := range v.Servers() {
		if !s.Dropped {
			host := cmp.Or(s.Host, s.Address)
			up[host] = up[host] || e.sessions.StateOf(s.Id, after) != metapb.Server_OFFLINE
		}
	}
	for _, any := range up {
		if !any {
			n++
		}
	}
	return n
}

// droppedServers are those that were removed although chunks still count on them.
func droppedServers(v *fsm.View) (out []uint32) {
	for _, s := range v.Servers() {
		if s.Dropped && v.Members(s.Id) > 0 {
			out = append(out, s.Id)
		}
	}
	return out
}

func (e *Engine) offline(v *fsm.View, after time.Duration) (out []uint32) {
	for _, s := range v.Servers() {
		if !s.Dropped && e.sessions.StateOf(s.Id, after) == metapb.Server_OFFLINE {
			out = append(out, s.Id)
		}
	}
	return out
}

func (e *Engine) dropServer(v *fsm.View, server uint32, drops *changes) {
	var c fsm.Chunk
	v.Replicas(server, func(b *fsm.Block) bool {
		return b.Each(func(index uint32) bool {
			k := fsm.ChunkKey{File: b.File, Index: index}
			if v.Chunk(k, &c) && MayDrop(Judged(e.sessions, e.leader.LeftOut()), k, &c, server) == Drop {
				drops.add(k, &fsmpb.Change{Version: c.Version, Drop: []uint32{server}})
			}
			return drops.count < maxEntry
		})
	})
}
