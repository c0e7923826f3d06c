package cs

import (
	"errors"
	"fmt"
	"reflect"

	"golang.org/x/sync/errgroup"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
	"pstorage/meta/metapb"
)

const (
	// commandQueue is how many commands wait to be executed; the stream waits beyond.
	commandQueue = 1024
	// sharing is how many calls of the engine are made at once.
	sharing = 16
)

// executor executes commands in order. Those of one kind that wait together become one call of the engine, or calls at the same
// time, and so share syncs.
func (a *attachment) executor() {
	var ahead *metapb.Command // taken from the queue, not executed yet
	for {
		first := ahead
		if ahead = nil; first == nil {
			first = <-a.cmds
		}
		if first == nil {
			return
		}
		if a.ctx.Err() != nil {
			continue // the queue is closed soon
		}
		batch := []*metapb.Command{first}
		for joins(first) && ahead == nil && len(batch) < commandQueue {
			select {
			case c := <-a.cmds:
				if c != nil && sameKind(first, c) {
					batch = append(batch, c)
					continue
				}
				ahead = c
			default:
			}
			break
		}
		a.execute(batch)
	}
}

// joins reports whether commands like c are executed together.
func joins(c *metapb.Command) bool { return c.GetPrepare() != nil || members(c) != nil }

func sameKind(a, b *metapb.Command) bool {
	return reflect.TypeOf(a.Command) == reflect.TypeOf(b.Command)
}

// members is the list of a command that is about replicas as members, nil for others.
func members(c *metapb.Command) []*metapb.ChunkAt {
	switch k := c.Command.(type) {
	case *metapb.Command_Raise:
		return k.Raise.Chunks
	case *metapb.Command_Promote:
		return k.Promote.Chunks
	case *metapb.Command_Demote:
		return k.Demote.Chunks
	case *metapb.Command_Remove:
		return k.Remove.Chunks
	}
	return nil
}

// execute executes commands of one kind.
func (a *attachment) execute(batch []*metapb.Command) {
	var chunks []*metapb.ChunkAt
	for _, c := range batch {
		chunks = append(chunks, members(c)...)
	}
	c := batch[0]
	switch k := c.Command.(type) {
	case *metapb.Command_Prepare:
		a.prepare(batch)
	case *metapb.Command_Raise:
		a.results(batch, a.raise(chunks))
	case *metapb.Command_Promote:
		a.results(batch, a.promote(chunks))
	case *metapb.Command_Demote:
		a.quarantine(chunks)
		a.results(batch, a.giveUp(chunks, a.s.engine.Demote))
	case *metapb.Command_Remove:
		a.quarantine(chunks)
		a.results(batch, a.giveUp(chunks, a.s.engine.Remove))
		a.s.count.uncounted.Store(true)
	case *metapb.Command_Cancel:
		a.s.pulls.cancel(chunkOf(k.Cancel.Chunk), k.Cancel.Chunk.GetVersion())
		a.result(c.Id, nil)
	case *metapb.Command_Pull:
		a.startPull(c.Id, k.Pull)
	case *metapb.Command_Absolve:
		a.startAbsolve(c.Id, k.Absolve)
	case *metapb.Command_Verify:
		a.startVerify(c.Id, k.Verify)
	case *metapb.Command_Mend:
		a.startMend(c.Id, k.Mend)
	case *metapb.Command_Fold:
		a.startFold(c.Id, k.Fold)
	default:
		a.fail(c.Id, fmt.Errorf("unknown command %T", c.Command))
	}
}

func chunkOf(c *metapb.ChunkAt) chunk.ID { return chunk.ID{File: c.GetFile(), Index: c.GetIndex()} }

// each does something with every chunk, several at a time so that they share syncs.
func each(chunks []*metapb.ChunkAt, do func(chunk.ID, uint64) error) []error {
	errs := make([]error, len(chunks))
	var g errgroup.Group
	g.SetLimit(sharing)
	for i, c := range chunks {
		g.Go(func() error {
			errs[i] = do(chunkOf(c), c.Version)
			return nil
		})
	}
	_ = g.Wait() // the errors are in errs
	return errs
}

// raise sets versions: with one call per file, or, where that fails, chunk by chunk, to tell which fail.
func (a *attachment) raise(chunks []*metapb.ChunkAt) []error {
	e := a.s.engine
	bad := make(map[uint64]bool)
	for file, list := range byFile(chunks) {
		bad[file] = e.Raise(file, 0, list) != nil
	}
	return each(chunks, func(id chunk.ID, version uint64) error {
		if !bad[id.File] {
			return nil
		}
		return e.Raise(id.File, 0, []store.ChunkVersion{{Index: id.Index, Version: version}})
	})
}

func (a *attachment) promote(chunks []*metapb.ChunkAt) []error {
	defer a.s.folder.wanted()
	return each(chunks, func(id chunk.ID, version uint64) error {
		err := a.s.engine.Promote(id, version)
		if err == nil {
			a.s.pulls.forget(id)
		}
		return err
	})
}

// giveUp demotes or removes chunks, all at once, or, where that fails, one after the other, to tell which fail.
func (a *attachment) giveUp(chunks []*metapb.ChunkAt, do func([]chunk.ID) error) []error {
	ids := make([]chunk.ID, len(chunks))
	for i, c := range chunks {
		ids[i] = chunkOf(c)
		a.s.pulls.cancel(ids[i], 0)
		a.s.pulls.forget(ids[i])
	}
	errs := make([]error, len(ids))
	if len(ids) == 0 || do(ids) == nil {
		a.s.dealtWith(ids...)
		return errs
	}
	for i, id := range ids {
		if errs[i] = do([]chunk.ID{id}); errs[i] == nil {
			a.s.dealtWith(id)
		}
	}
	return errs
}

// prepare executes Prepare commands with one call.
func (a *attachment) prepare(batch []*metapb.Command) {
	var list []store.Preparation
	for _, c := range batch {
		for _, p := range c.GetPrepare().Chunks {
			list = append(list, preparation(p))
		}
	}
	for i := range list {
		a.s.pulls.prepared(list[i].ID)
		a.s.dealtWith(list[i].ID)
	}
	a.results(batch, a.s.engine.Prepare(list))
	a.s.count.uncounted.Store(true)
}

func preparation(p *metapb.PrepareChunk) store.Preparation {
	state := store.InSync
	if p.Syncing {
		state = store.Syncing
	}
	return store.Preparation{ID: chunk.ID{File: p.File, Index: p.Index}, Blocks: p.Blocks, Layers: p.Layers,
		Epoch: p.Epoch, Version: p.Version, State: state}
}

// results reports the outcomes of the chunks of several commands.
func (a *attachment) results(batch []*metapb.Command, errs []error) {
	for _, c := range batch {
		n := max(len(members(c)), len(c.GetPrepare().GetChunks()))
		a.result(c.Id, errs[:n])
		errs = errs[n:]
	}
}

// result reports one outcome per chunk.
func (a *attachment) result(id uint64, errs []error) {
	r := &metapb.Result{Id: id, Errors: make([]string, len(errs))}
	for i, err := range errs {
		if err != nil {
			r.Errors[i] = err.Error()
			a.s.log.Warn("command failed", "id", id, "error", err)
		}
	}
	a.say(&metapb.FromServer{Message: &metapb.FromServer_Result{Result: r}})
}

// fail reports that a whole command failed.
func (a *attachment) fail(id uint64, err error) {
	a.s.log.Warn("command failed", "id", id, "error", err)
	r := &metapb.Result{Id: id, Error: err.Error()}
	var left notWhole
	if errors.As(err, &left) {
		r.Left = uint64(left)
	}
	var corrupt sourceCorrupt
	r.SourceCorrupt = errors.As(err, &corrupt)
	a.say(&metapb.FromServer{Message: &metapb.FromServer_Result{Result: r}})
}
