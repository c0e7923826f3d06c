package fsm

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Chunk is a chunk's record. Lists are sorted and without repeats.
type Chunk struct {
	Version uint64
	Insync  []uint32
	Syncing []uint32
	Former  []Former
	Losses  uint64 // how often what was not flushed was lost with the power of all in sync
}

// Former is a server that was a member and may still hold a replica, stale: the base of a rebuild, unless corrupt.
type Former struct {
	Server  uint32
	Corrupt bool
}

// Member tells whether the server is in sync or syncing.
func (c *Chunk) Member(server uint32) bool {
	return slices.Contains(c.Insync, server) || slices.Contains(c.Syncing, server)
}

// Members returns all that take writes.
func (c *Chunk) Members() []uint32 {
	return append(slices.Clone(c.Insync), c.Syncing...)
}

func (c *Chunk) clone() Chunk {
	return Chunk{c.Version, slices.Clone(c.Insync), slices.Clone(c.Syncing), slices.Clone(c.Former), c.Losses}
}

func (c *Chunk) former(server uint32) (int, bool) {
	return slices.BinarySearchFunc(c.Former, server, func(f Former, s uint32) int { return int(int64(f.Server) - int64(s)) })
}

func encodeChunk(c *Chunk) []byte {
	out := binary.AppendUvarint(make([]byte, 0, 24), c.Version)
	out = appendServers(out, c.Insync)
	former := len(c.Former) > 0 || c.Losses > 0
	if former || len(c.Syncing) > 0 {
		out = appendServers(out, c.Syncing)
	}
	if former {
		out = append(out, byte(len(c.Former)))
		for _, f := range c.Former {
			v := uint64(f.Server) << 1
			if f.Corrupt {
				v |= 1
			}
			out = binary.AppendUvarint(out, v)
		}
	}
	if c.Losses > 0 {
		out = binary.AppendUvarint(out, c.Losses)
	}
	return out
}

func appendServers(out []byte, servers []uint32) []byte {
	out = append(out, byte(len(servers)))
	for _, s := range servers {
		out = binary.AppendUvarint(out, uint64(s))
	}
	return out
}

// decodeChunk fills c from a record; it uses the lists' capacity.
func decodeChunk(v []byte, c *Chunk) error {
	version, n := binary.Uvarint(v)
	if n <= 0 {
		return fmt.Errorf("chunk version: %w", ErrCorrupt)
	}
	v = v[n:]
	c.Version, c.Insync, c.Syncing, c.Former, c.Losses = version, c.Insync[:0], c.Syncing[:0], c.Former[:0], 0
	v, err := takeServers(v, 1<<32-1, func(s uint64) { c.Insync = append(c.Insync, uint32(s)) })
	if err == nil && len(v) > 0 {
		v, err = takeServers(v, 1<<32-1, func(s uint64) { c.Syncing = append(c.Syncing, uint32(s)) })
	}
	if err == nil && len(v) > 0 {
		v, err = takeServers(v, 1<<33-1, func(s uint64) { c.Former = append(c.Former, Former{uint32(s >> 1), s&1 != 0}) })
	}
	if err == nil && len(v) > 0 {
		if c.Losses, n = binary.Uvarint(v); n <= 0 || c.Losses == 0 {
			return fmt.Errorf("losses of a chunk: %w", ErrCorrupt)
		}
		v = v[n:]
	}
	if err == nil && len(v) > 0 {
		err = fmt.Errorf("%d bytes after a chunk's record: %w", len(v), ErrCorrupt)
	}
	return err
}

// takeServers reads one list: ascending numbers up to most.
func takeServers(v []byte, most uint64, add func(uint64)) (rest []byte, err error) {
	if len(v) == 0 || v[0] > MaxReplicas {
		return nil, fmt.Errorf("list of servers: %w", ErrCorrupt)
	}
	count, last, v := int(v[0]), uint64(0), v[1:]
	for range count {
		s, n := binary.Uvarint(v)
		if n <= 0 || s > most || s <= last {
			return nil, fmt.Errorf("server in a list: %w", ErrCorrupt)
		}
		add(s)
		v, last = v[n:], s
	}
	return v, nil
}

// Counts says how many chunks a file, or the cluster, has, and how they fare.
type Counts struct {
	Chunks     uint64
	Degraded   uint64 // fewer in sync than the norm
	Unwritable uint64 // fewer in sync than the minimum
	Syncing    uint64 // some replica is being rebuilt
}

func (n *Counts) add(m Counts) {
	n.Chunks += m.Chunks
	n.Degraded += m.Degraded
	n.Unwritable += m.Unwritable
	n.Syncing += m.Syncing
}

func (n *Counts) subtract(m Counts) {
	n.Chunks -= m.Chunks
	n.Degraded -= m.Degraded
	n.Unwritable -= m.Unwritable
	n.Syncing -= m.Syncing
}

func encodeCounts(n Counts) []byte {
	var out []byte
	for _, v := range []uint64{n.Chunks, n.Degraded, n.Unwritable, n.Syncing} {
		out = binary.AppendUvarint(out, v)
	}
	return out
}

func decodeCounts(v []byte) (n Counts, err error) {
	for _, to := range []*uint64{&n.Chunks, &n.Degraded, &n.Unwritable, &n.Syncing} {
		x, used := binary.Uvarint(v)
		if used <= 0 {
			return Counts{}, fmt.Errorf("counts of a file: %w", ErrCorrupt)
		}
		*to, v = x, v[used:]
	}
	return n, nil
}

// weigh counts one chunk under a policy, and tells whether it wants attention.
func weigh(c *Chunk, p Policy) (n Counts, watch bool) {
	n.Chunks = 1
	if len(c.Insync) < int(p.Norm) {
		n.Degraded = 1
	}
	if len(c.Insync) < int(p.Min) {
		n.Unwritable = 1
	}
	if len(c.Syncing) > 0 {
		n.Syncing = 1
	}
	return n, n.Degraded > 0 || n.Syncing > 0 || len(c.Former) > 0
}
