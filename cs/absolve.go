package cs

import (
	"context"
	"sync/atomic"
	"time"

	"pstorage/cs/chunk"
	"pstorage/cs/wire"
	"pstorage/meta/metapb"
)

// otherTimeout is how long one block of another replica is waited for.
const otherTimeout = 2 * time.Second

// startAbsolve makes a suspect replica the source (R6); its Result comes when it is one.
func (a *attachment) startAbsolve(cmd uint64, m *metapb.Absolve) {
	id, version := chunkOf(m.Chunk), m.Chunk.GetVersion()
	var nothing atomic.Uint64
	err := a.s.pulls.start(a.ctx, id, version, func(ctx context.Context) {
		defer a.goesOn(cmd, &nothing, &nothing)()
		free, err := a.s.pulls.slots.take(ctx)
		if err != nil {
			a.fail(cmd, err)
			return
		}
		defer free()
		o := &others{s: a.s, ctx: ctx, id: id, versions: a.s.versionsOf(id, version), addrs: m.Others}
		defer o.release()
		if err := a.s.engine.Absolve(id, version, m.Unflushed, o.block); err != nil {
			a.fail(cmd, err)
			return
		}
		a.s.pulls.forget(id)
		a.s.folder.wanted()
		a.result(cmd, []error{nil})
	})
	if err != nil {
		a.fail(cmd, err)
	}
}

// versionsOf returns the versions at which another replica has what this one should have: the one it gets, and the one it has.
func (s *Server) versionsOf(id chunk.ID, version uint64) []uint64 {
	versions := []uint64{version}
	for r := range s.engine.Inventory {
		if r.ID == id {
			if r.Version != version {
				versions = append(versions, r.Version)
			}
			break
		}
	}
	return versions
}

// others are the other replicas of a chunk, asked for single blocks.
type others struct {
	s        *Server
	ctx      context.Context
	id       chunk.ID
	versions []uint64
	addrs    []string // those that have not failed
	silent   bool     // one has
	releases []func()
}

func (o *others) release() {
	for _, r := range o.releases {
		r()
	}
}

// block returns the block as another replica has it, verified, nil if none does. The others are suspect as well.
func (o *others) block(layer, block uint32) []byte {
	for i := 0; i < len(o.addrs); {
		data, ok := o.ask(o.addrs[i], layer, block)
		if data != nil {
			return data
		}
		if ok {
			i++
		} else {
			o.addrs = append(o.addrs[:i:i], o.addrs[i+1:]...)
		}
	}
	return nil
}

// ask asks one replica; not ok: it need not be asked again.
func (o *others) ask(addr string, layer, block uint32) (data []byte, ok bool) {
	ctx, cancel := context.WithTimeout(o.ctx, otherTimeout)
	defer cancel()
	conn, release, err := o.s.peers.get(ctx, addr, 0)
	if err != nil {
		return nil, false
	}
	o.releases = append(o.releases, release)
	for _, version := range o.versions {
		c := o.read(ctx, conn, layer, &wire.Call{Flags: wire.FlagSuspect, Version: version, Offset: block * chunk.BlockSize})
		switch {
		case c == nil:
			return nil, false
		case c.Status == wire.OK && chunk.HasData(c.Codes[0]):
			return c.Dst, true
		case c.Status == wire.OK || c.Status == wire.Corrupt:
			return nil, true
		}
	}
	return nil, false
}

// read asks a replica for one block of a layer; nil: there is no answer. Of layers that are gone, and those that they are a part of, the others may have merged
// some or none.
func (o *others) read(ctx context.Context, conn *wire.Conn, layer uint32, c *wire.Call) *wire.Call {
	back := make(answer, 1)
	gone := o.s.engine.Gone(o.id.File)
	c.Layer = gone.Next(layer)
	c.Epoch = uint64(gone.Below(c.Layer))
	c.Op, c.Flags, c.Chunk, c.Done = wire.OpReadLayer, c.Flags|wire.FlagPeer, o.id, back
	c.Length, c.Dst = chunk.BlockSize, make([]byte, chunk.BlockSize)
	conn.Send([]*wire.Call{c})
	select {
	case <-back:
	case <-ctx.Done():
		return nil
	}
	if c.Err != nil {
		return nil
	}
	return c
}

// former returns the block as a replica has it that is no member any more, if it has this code; or whether all of those have answered that they have
// no such block.
func (o *others) former(layer, block, code uint32) (data []byte, answered bool) {
	for i := 0; i < len(o.addrs); {
		data, ok := o.askFormer(o.addrs[i], layer, block, code)
		switch {
		case data != nil:
			return data, true
		case ok:
			i++
		default:
			o.silent = true
			o.addrs = append(o.addrs[:i:i], o.addrs[i+1:]...)
		}
	}
	return nil, !o.silent
}

// askFormer asks one. What its disk cannot read, or has damaged, it does not have.
func (o *others) askFormer(addr string, layer, block, code uint32) (data []byte, ok bool) {
	ctx, cancel := context.WithTimeout(o.ctx, otherTimeout)
	defer cancel()
	conn, release, err := o.s.peers.get(ctx, addr, 0)
	if err != nil {
		return nil, false
	}
	o.releases = append(o.releases, release)
	c := o.read(ctx, conn, layer, &wire.Call{Flags: wire.FlagFormer, Offset: block * chunk.BlockSize})
	switch {
	case c == nil:
		return nil, false
	case c.Status == wire.OK && chunk.HasData(code) && c.Codes[0] == code:
		return c.Dst, true
	}
	return nil, c.Status == wire.OK || c.Status == wire.Corrupt || c.Status == wire.IOError || c.Status == wire.NoChunk
}

// answer takes one call back.
type answer chan *wire.Call

// CompleteCalls implements wire.Completer.
func (a answer) CompleteCalls(batch []*wire.Call) { a <- batch[0] }
