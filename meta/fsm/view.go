package fsm

import (
	"bytes"
	"fmt"
	"slices"

	"pstorage/meta/fsm/fsmpb"
)

// View reads the state as it was after one entry.
type View struct{ *txn }

func (tx *txn) file(id uint64, n *fsmpb.Node) *File {
	f := &File{ID: id, Path: tx.pathOf(id), Node: n, Policy: tx.policy(id, n), Counts: tx.fileCounts(id),
		Snapshots: tx.countSnapshots(id, n), Quotas: tx.quotas(id, n)}
	if s := tx.base(n); s != nil {
		f.Over = &Over{s, tx.pathOf(s.File)}
	}
	return f
}

// Applied is the index of the last entry.
func (v *View) Applied() uint64 { return number(v.cluster.Get(appliedKey)) }

// Cluster returns the name and the id of the cluster; no id before Init.
func (v *View) Cluster() (name string, id []byte) {
	return string(v.cluster.Get(nameKey)), slices.Clone(v.cluster.Get(idKey))
}

// File returns a file or directory by number.
func (v *View) File(id uint64) (*File, error) {
	n := v.node(id)
	if n == nil {
		return nil, fmt.Errorf("file %d: %w", id, ErrNotFound)
	}
	return v.file(id, n), v.err
}

// Lookup returns a file or directory by path.
func (v *View) Lookup(path string) (*File, error) {
	id, n, err := v.find(path)
	if err != nil {
		return nil, err
	}
	return v.file(id, n), v.err
}

// List returns what is in a directory, sorted by name, with what is beneath if recursive; at most limit entries.
func (v *View) List(path string, recursive bool, limit int) ([]*File, error) {
	id, n, err := v.find(path)
	if err != nil {
		return nil, err
	}
	if !n.Directory {
		return []*File{v.file(id, n)}, v.err
	}
	var out []*File
	if !v.list(id, recursive, limit, &out) {
		return nil, fmt.Errorf("%s has more than %d entries: %w", path, limit, ErrInvalid)
	}
	return out, v.err
}

func (v *View) list(id uint64, recursive bool, limit int, out *[]*File) bool {
	c, prefix := v.names.Cursor(), nodeKey(id)
	for k, num := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, num = c.Next() {
		child := number(num)
		n := v.node(child)
		if n == nil {
			v.fail(fmt.Errorf("name %q has no node: %w", k[8:], ErrCorrupt))
			return true
		}
		if len(*out) >= limit {
			return false
		}
		*out = append(*out, v.file(child, n))
		if recursive && n.Directory && !v.list(child, recursive, limit, out) {
			return false
		}
	}
	return true
}

// Files calls yield for every file and directory until it returns false.
func (v *View) Files(yield func(id uint64, n *fsmpb.Node) bool) {
	c := v.nodes.Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		id := number(k)
		if n := v.node(id); n == nil || !yield(id, n) {
			return
		}
	}
}

// Chunk fills c with a chunk's record; it tells whether there is one.
func (v *View) Chunk(k ChunkKey, c *Chunk) bool { return v.chunk(k, c) }

// Chunks calls yield for the chunks of a file, from an index on, until it returns false. The record is valid only during the call.
func (v *View) Chunks(file uint64, from uint32, yield func(index uint32, c *Chunk) bool) {
	var rec Chunk
	c, prefix := v.chunks.Cursor(), nodeKey(file)
	start := ChunkKey{file, from}
	for k, val := c.Seek(start.bytes()); k != nil && bytes.HasPrefix(k, prefix); k, val = c.Next() {
		if err := decodeChunk(val, &rec); err != nil {
			v.fail(fmt.Errorf("file %d: %w", file, err))
			return
		}
		if !yield(chunkKeyOf(k).Index, &rec) {
			return
		}
	}
}

// Replicas calls yield for all that a server is a member of, by blocks, until it returns false.
func (v *View) Replicas(server uint32, yield func(*Block) bool) {
	v.eachBlock(v.replicas, serverKey(server), nil, func(_ uint32, b *Block) bool { return yield(b) })
}

// FileReplicas does the same for one file.
func (v *View) FileReplicas(server uint32, file uint64, yield func(*Block) bool) {
	v.eachBlock(v.replicas, fileKey(server, file), nil, func(_ uint32, b *Block) bool { return yield(b) })
}

// Garbage calls yield for what a server holds of deleted files.
func (v *View) Garbage(server uint32, yield func(*Block) bool) {
	v.eachBlock(v.garbage, serverKey(server), nil, func(_ uint32, b *Block) bool { return yield(b) })
}

// IsGarbage tells whether a chunk on a server belongs to a deleted file.
func (v *View) IsGarbage(server uint32, k ChunkKey) bool {
	return v.block(v.garbage, server, k).Has(k.Index)
}

// Watch calls yield for the chunks that want attention, those with the fewest in sync first, from a place on, until it returns false.
func (v *View) Watch(insync int, from ChunkKey, yield func(insync int, k ChunkKey) bool) {
	c := v.watch.Cursor()
	for k, _ := c.Seek(from.watchBytes(insync)); k != nil; k, _ = c.Next() {
		if !yield(int(k[0]), chunkKeyOf(k[1:])) {
			return
		}
	}
}

// Server returns a chunk server, nil if there is none.
func (v *View) Server(id uint32) *fsmpb.Server {
	s := &fsmpb.Server{}
	if !v.getMessage(v.servers, serverKey(id), s) {
		return nil
	}
	return s
}

// Servers returns all chunk servers, sorted by number.
func (v *View) Servers() (out []*fsmpb.Server) {
	_ = v.servers.ForEach(func(k, _ []byte) error {
		s := &fsmpb.Server{}
		if v.getMessage(v.servers, k, s) {
			out = append(out, s)
		}
		return nil
	})
	return out
}

// Config returns the parameters that were set.
func (v *View) Config() map[string]string {
	out := map[string]string{}
	_ = v.config.ForEach(func(k, val []byte) error {
		out[string(k)] = string(val)
		return nil
	})
	return out
}

// Totals counts files, their bytes, and chunks.
func (v *View) Totals() (files, bytes uint64, n Counts) {
	v.Files(func(_ uint64, node *fsmpb.Node) bool {
		if !node.Directory && node.FormerOf == 0 {
			files, bytes = files+1, bytes+node.Size
		}
		return true
	})
	_ = v.counts.ForEach(func(_, val []byte) error {
		m, err := decodeCounts(val)
		if err != nil {
			v.fail(err)
		}
		n.add(m)
		return nil
	})
	return files, bytes, n
}
