package leader

import (
	"context"
	"errors"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/recovery"
)

const (
	// maxChunks is the most chunks of one reply of GetChunks, and of a list in a request.
	maxChunks = 16384
	// dropTries is how often a drop is judged again when chunks have changed meanwhile.
	dropTries = 4
)

// GetChunks reads a file's map.
func (l *Leader) GetChunks(ctx context.Context, in *metapb.GetChunksRequest) (*metapb.GetChunksReply, error) {
	if len(in.Only) > maxChunks {
		return nil, Status(invalid("%d chunks asked for, at most %d", len(in.Only), maxChunks))
	}
	if err := l.Verify(ctx); err != nil {
		return nil, Status(err)
	}
	out := &metapb.GetChunksReply{}
	err := l.View(func(v *fsm.View) error {
		if _, err := v.File(in.File); err != nil {
			return err
		}
		out.Servers = l.servers(v)
		if len(in.Only) > 0 {
			out.Chunks = chunksOf(v, in.File, in.Only)
			return nil
		}
		limit := maxChunks
		if in.Limit > 0 {
			limit = min(limit, int(in.Limit))
		}
		v.Chunks(in.File, in.From, func(index uint32, c *fsm.Chunk) bool {
			if len(out.Chunks) == limit {
				out.More = true
				return false
			}
			out.Chunks = append(out.Chunks, chunkOut(index, c))
			return true
		})
		return nil
	})
	return out, Status(err)
}

// chunksOf returns those of the chunks that exist.
func chunksOf(v *fsm.View, file uint64, indices []uint32) (out []*metapb.Chunk) {
	var c fsm.Chunk
	for _, i := range indices {
		if v.Chunk(fsm.ChunkKey{File: file, Index: i}, &c) {
			out = append(out, chunkOut(i, &c))
		}
	}
	return out
}

// Drop takes a server out of chunks of a file for the holder (R4). All that may be dropped go in one entry; the holder raises the
// versions.
func (l *Leader) Drop(ctx context.Context, in *metapb.DropRequest) (*metapb.DropReply, error) {
	if err := checkClient(in.Client); err != nil {
		return nil, Status(err)
	}
	if len(in.Indices) > maxChunks {
		return nil, Status(invalid("%d chunks to drop, at most %d", len(in.Indices), maxChunks))
	}
	l.log.Info("holder reports a failed replica", "server", in.Server, "file", in.File, "chunks", len(in.Indices), "all", in.All, "reason", in.Reason)
	for range dropTries {
		out, again, err := l.drop(ctx, in)
		if err != nil || !again {
			return out, Status(err)
		}
	}
	return nil, Status(fsm.ErrConflict)
}

func (l *Leader) drop(ctx context.Context, in *metapb.DropRequest) (out *metapb.DropReply, again bool, err error) {
	out = &metapb.DropReply{}
	changes := &fsmpb.FileChanges{File: in.File, HolderEpoch: in.Epoch, Holder: in.Client.Id}
	if in.Epoch == 0 {
		return nil, false, invalid("epoch 0")
	}
	var doubted []fsm.ChunkKey // replicas that are not dropped on a reader's word: they are verified
	err = l.View(func(v *fsm.View) error {
		f, err := v.File(in.File)
		if err != nil {
			return err
		}
		if !isHolder(f.Node, in.Client, in.Epoch) {
			return fsm.ErrNotHolder
		}
		var c fsm.Chunk
		for _, k := range dropKeys(v, in) {
			if !v.Chunk(k, &c) {
				continue
			}
			switch recovery.MayDrop(recovery.Judged(l.sessions, l.LeftOut()), k, &c, in.Server) {
			case recovery.Drop:
				changes.Changes = append(changes.Changes, &fsmpb.Change{Index: k.Index, Version: c.Version, Drop: []uint32{in.Server}, Corrupt: in.Corrupt})
			case recovery.NoMember:
				out.Dropped = append(out.Dropped, chunkOut(k.Index, &c))
			default:
				out.Refused = append(out.Refused, chunkOut(k.Index, &c))
				doubted = append(doubted, k)
			}
		}
		return nil
	})
	if err == nil && in.Corrupt {
		l.scrub.Ask(in.Server, doubted)
	}
	if err != nil || len(changes.Changes) == 0 {
		return out, false, err
	}
	outcomes, err := l.Alter(ctx, []*fsmpb.FileChanges{changes})
	if err != nil {
		return nil, false, err
	}
	for i := range outcomes {
		o := &outcomes[i]
		switch {
		case o.Err == nil:
			out.Dropped = append(out.Dropped, chunkOut(o.Key.Index, &o.Chunk))
		case errors.Is(o.Err, fsm.ErrConflict):
			again = true
		default:
			return nil, false, o.Err
		}
	}
	if in.Corrupt {
		l.scrub.Found(keysOf(out.Dropped, in.File))
	}
	l.sessions.Publish(outcomes, false)
	l.recovery.Changed(outcomes, true)
	return out, again, nil
}

func keysOf(chunks []*metapb.Chunk, file uint64) (keys []fsm.ChunkKey) {
	for _, c := range chunks {
		keys = append(keys, fsm.ChunkKey{File: file, Index: c.Index})
	}
	return keys
}

// dropKeys lists the chunks that a request is about.
func dropKeys(v *fsm.View, in *metapb.DropRequest) (keys []fsm.ChunkKey) {
	if !in.All {
		for _, i := range in.Indices {
			keys = append(keys, fsm.ChunkKey{File: in.File, Index: i})
		}
		return keys
	}
	v.FileReplicas(in.Server, in.File, func(b *fsm.Block) bool {
		return b.Each(func(index uint32) bool {
			keys = append(keys, fsm.ChunkKey{File: in.File, Index: index})
			return true
		})
	})
	return keys
}
