package blockstore

import (
	"context"
	"fmt"
	"time"

	"pstorage/blockstore/block"
	"pstorage/meta/metapb"
)

// pollLinks is how often Open looks whether a restarting server is back.
const pollLinks = 100 * time.Millisecond

// Open takes the lease of a file and fences its chunk servers (R5). The volume can be used at once; what a crash of the last holder left
// to compare is compared in the background, those chunks first that somebody waits for.
func (c *Client) Open(ctx context.Context, path string, opt OpenOptions) (*Volume, error) {
	opt.leftOut |= c.cfg.LeftOut
	sent := c.now()
	rep, err := c.meta.Open(ctx, &metapb.OpenRequest{Client: c.me, Path: path, Incoming: opt.Incoming, Over: true})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	v, err := c.newVolume(rep, opt)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	v.lease.grant(sent, rep.LeaseMs)
	if err := c.register(v); err != nil {
		return nil, err
	}
	if err := v.loadMap(ctx, rep.Servers); err != nil {
		v.cancel()
		c.unregister(v)
		v.giveUp(ctx, false)
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := v.openUnder(ctx, rep.File); err != nil {
		v.cancel()
		c.unregister(v)
		v.giveUp(ctx, false)
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	v.awaitLinks(ctx)
	v.round()
	if v.lease.lost.Load() {
		v.cancel()
		v.leaveUnder()
		c.unregister(v)
		return nil, fmt.Errorf("open %s: %w", path, block.ErrLostLease)
	}
	v.wg.Go(v.repairLoop)
	v.wg.Go(v.settleLoop)
	v.wg.Go(v.alloc.run)
	if rep.File.Flattening {
		v.startFlatten()
	}
	v.log.Info("volume open", "size", v.Size(), "servers", len(v.allServers()))
	return v, nil
}

func (c *Client) newVolume(rep *metapb.OpenReply, opt OpenOptions) (*Volume, error) {
	info := rep.File
	size := info.GetEffective().GetChunkSize()
	if info == nil || rep.Epoch == 0 || len(info.Layers) == 0 || size < 1<<20 || size&(size-1) != 0 || size > 1<<28 {
		return nil, fmt.Errorf("the metadata servers describe it badly: %v", rep)
	}
	v := &Volume{c: c, path: info.Path, file: info.Id, epoch: rep.Epoch,
		min: int(max(info.Effective.ReplicasMin, 1)), shift: shiftOf(size), opt: opt,
		drained: make(chan struct{}, 1), wakeup: make(chan struct{}, 1),
		stuck: map[*chunkState]struct{}{}, unsettled: map[*chunkState]struct{}{}}
	v.log = c.log.With("volume", v.path, "epoch", v.epoch)
	v.batches.New = func() any { return new(batch) }
	v.requests.New = func() any { return new(request) }
	v.pieces.New = func() any { return new(piece) }
	v.layer.Store(info.Layers[len(info.Layers)-1])
	v.gate.still, v.gate.layers = make(chan struct{}, 1), newTurn()
	v.flusher.v, v.flusher.since = v, c.ends.Load()
	v.alloc.v, v.alloc.wake = v, make(chan struct{}, 1)
	v.servers.Store(new([]*vserver))
	v.size.Store(int64(info.Size))
	v.losses.file.Store(info.Losses)
	v.table.grow(v.chunksFor(int64(info.Size)))
	v.ctx, v.cancel = context.WithCancel(context.Background())
	v.filler.ctx, v.filler.cancel = context.WithCancel(v.ctx)
	return v, nil
}

func (c *Client) register(v *Volume) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClientClosed
	}
	c.volumes[v] = struct{}{}
	if c.stopOrders == nil && !v.opt.brief {
		ctx, cancel := context.WithCancel(c.ctx)
		c.stopOrders = cancel
		c.wg.Go(func() { c.takeOrders(ctx) })
	}
	return nil
}

func (c *Client) unregister(v *Volume) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.volumes, v)
	if len(c.volumes) == 0 && c.stopOrders != nil {
		c.stopOrders()
		c.stopOrders = nil
	}
}

// loadMap reads the whole chunk map.
func (v *Volume) loadMap(ctx context.Context, servers []*metapb.Server) error {
	v.meet(servers)
	return v.c.readMap(ctx, v.file, v.learnAll)
}

// readMap reads a file's whole chunk map, part by part.
func (c *Client) readMap(ctx context.Context, file uint64, take func([]*metapb.Chunk, []*metapb.Server)) error {
	for from, more := uint32(0), true; more; {
		rep, err := c.meta.GetChunks(ctx, &metapb.GetChunksRequest{File: file, From: from, Limit: mapBatch})
		if err != nil {
			return err
		}
		take(rep.Chunks, rep.Servers)
		if more = rep.More && len(rep.Chunks) > 0; more {
			from = rep.Chunks[len(rep.Chunks)-1].Index + 1
		}
	}
	return nil
}

// meet takes the addresses of servers that the volume has to do with, or may have.
func (v *Volume) meet(servers []*metapb.Server) {
	for _, s := range servers {
		if vs := v.server(s.Id); vs != nil {
			vs.link.setAddress(s.Address)
		}
	}
	v.c.rememberServers(servers)
}

// server returns a server that the volume has to do with already, or nil.
func (v *Volume) server(id uint32) *vserver {
	for _, vs := range v.allServers() {
		if vs.id == id {
			return vs
		}
	}
	return nil
}

// known returns the servers of a chunk's map. Those new to the volume are not fenced yet, and their first flush is not left out: what an
// earlier holder wrote there may not be on stable storage.
func (v *Volume) known(ids []uint32) []*vserver {
	out := make([]*vserver, len(ids))
	for i, id := range ids {
		if out[i] = v.server(id); out[i] == nil {
			out[i] = v.addServer(id)
		}
	}
	return out
}

func (v *Volume) addServer(id uint32) *vserver {
	v.serversMu.Lock()
	defer v.serversMu.Unlock()
	if vs := v.server(id); vs != nil {
		return vs
	}
	vs := &vserver{id: id, link: v.c.linkTo(id)}
	vs.dirty.Store(true)
	list := append(append([]*vserver(nil), v.allServers()...), vs)
	v.servers.Store(&list)
	return vs
}

// awaitLinks waits, not for long, until the servers that are said to be up are connected: one that is just restarting need not be rebuilt.
func (v *Volume) awaitLinks(ctx context.Context) {
	for end := v.c.now() + int64(admissionGrace); v.c.now() < end && ctx.Err() == nil; v.sleep(pollLinks) {
		waits := false
		for _, vs := range v.allServers() {
			if !vs.link.is(linkUp) && v.c.saidUp(vs.id) {
				waits = true
				vs.link.retry()
			}
		}
		if !waits {
			return
		}
	}
}
