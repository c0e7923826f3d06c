package blockstore

import (
	"cmp"
	"slices"

	"pstorage/blockstore/block"
	"pstorage/cs/chunk"
	"pstorage/cs/store"
	"pstorage/cs/wire"
)

// do applies a request; s.mu is held.
func (s *fakeServer) do(w *wire.Call) wire.Status {
	s.ops[w.Op]++
	if w.Op == wire.OpPing {
		return wire.OK
	}
	if !s.admitted {
		return wire.NotAdmitted
	}
	if s.fail != nil {
		if st := s.fail(w); st != wire.OK {
			return st
		}
	}
	switch w.Op {
	case wire.OpFence:
		return s.doFence(w)
	case wire.OpFlush, wire.OpRaise, wire.OpSettle:
		if st := s.checkEpoch(w); st != wire.OK {
			return st
		}
		return s.doFile(w)
	}
	r := s.replicas[w.Chunk]
	if st := s.check(w, r); st != wire.OK {
		return st
	}
	return s.doChunk(w, r)
}

func (s *fakeServer) checkEpoch(w *wire.Call) wire.Status {
	have := s.fence[w.Chunk.File]
	if w.Aux0 = have; w.Epoch == have || s.late && w.Epoch > have {
		return wire.OK
	}
	return wire.StaleEpoch
}

func (s *fakeServer) doFence(w *wire.Call) wire.Status {
	if w.Aux0 = s.fence[w.Chunk.File]; w.Epoch < w.Aux0 {
		return wire.StaleEpoch
	}
	s.fence[w.Chunk.File] = w.Epoch
	var open []store.ChunkVersion
	for id, r := range s.replicas {
		if id.File == w.Chunk.File && r.open && id.Index >= w.Offset {
			open = append(open, store.ChunkVersion{Index: id.Index, Version: r.version})
		}
	}
	slices.SortFunc(open, func(a, b store.ChunkVersion) int { return cmp.Compare(a.Index, b.Index) })
	page := open[:min(len(open), fencePage)]
	w.Aux0 = uint64(len(open) - len(page))
	w.Reply = wire.AppendChunkVersions(nil, page)
	return wire.OK
}

// fencePage is how many open chunks a fake server names in one answer.
const fencePage = 2

func (s *fakeServer) doFile(w *wire.Call) wire.Status {
	if w.Op == wire.OpFlush {
		for id, r := range s.replicas {
			if id.File != w.Chunk.File {
				continue
			}
			if r.suspect && r.state != store.Stale {
				return wire.Suspect // R9suspect
			}
			r.sync()
		}
		return wire.OK
	}
	list, err := wire.DecodeChunkVersions(w.Body)
	if err != nil {
		return wire.BadRequest
	}
	for _, e := range list {
		r := s.replicas[chunk.ID{File: w.Chunk.File, Index: e.Index}]
		switch {
		case r == nil:
			return wire.NoChunk
		case r.state == store.Stale:
			return wire.StaleReplica
		case r.suspect:
			return wire.Suspect
		case w.Op == wire.OpRaise && e.Version < r.version:
			return wire.StaleVersion
		case w.Op == wire.OpRaise:
			r.version = e.Version
		case e.Version == r.version:
			r.sync()
			r.open = false
		}
	}
	return wire.OK
}

func (s *fakeServer) check(w *wire.Call, r *fakeReplica) wire.Status {
	reads := readsOnly(w)
	switch {
	case r == nil:
		return wire.NoChunk
	case r.state == store.Stale || reads && r.state != store.InSync:
		return wire.StaleReplica
	case r.suspect:
		return wire.Suspect
	}
	if st := s.checkEpoch(w); st != wire.OK && w.Flags&wire.FlagFrozen == 0 {
		return st
	}
	if w.Aux0 = r.version; w.Version != r.version {
		return wire.StaleVersion
	}
	return wire.OK
}

func readsOnly(w *wire.Call) bool {
	return w.Op == wire.OpRead || w.Op == wire.OpTable || w.Op == wire.OpTableLayer
}

func (s *fakeServer) doChunk(w *wire.Call, r *fakeReplica) wire.Status {
	if !readsOnly(w) {
		if st := r.grow(w); st != wire.OK {
			return st
		}
	}
	switch w.Op {
	case wire.OpRead, wire.OpTable:
		return r.read(w)
	case wire.OpTableLayer:
		return r.differences(w)
	case wire.OpWrite:
		return s.write(w, r)
	case wire.OpZero:
		r.open = true
		r.put(w.Chunk, w.Offset, make([]byte, w.Length))
	case wire.OpAtomic:
		return s.copyBlocks(w, r)
	}
	return wire.OK
}

func (r *fakeReplica) read(w *wire.Call) wire.Status {
	for i := range w.Length / block.Size {
		no := w.Offset/block.Size + i
		data := r.seen(w.Layer)[no]
		code := chunk.Absent
		switch {
		case data == nil:
			data = make([]byte, block.Size)
		case isZero(data):
			code = chunk.Zeros
		default:
			code = chunk.BlockSum(w.Chunk, no, data)
		}
		if w.Op == wire.OpRead {
			if w.Data = append(w.Data, data...); r.corrupt[no] {
				w.Aux0 = uint64(no)
				return wire.Corrupt
			}
		}
		w.Codes = append(w.Codes, code)
	}
	return wire.OK
}

func (s *fakeServer) write(w *wire.Call, r *fakeReplica) wire.Status {
	at := uint32(0)
	for _, sum := range w.Sums {
		n := min(block.Size-(w.Offset+at)%block.Size, w.Length-at)
		no := (w.Offset + at) / block.Size
		if chunk.BlockSum(w.Chunk, no, w.Data[at:at+n]) != sum {
			return wire.BadSum
		}
		if s.full && r.blocks[no] == nil {
			return wire.NoSpace // what came before it is written
		}
		r.open = true
		r.put(w.Chunk, w.Offset+at, w.Data[at:at+n])
		at += n
	}
	return wire.OK
}

func (s *fakeServer) copyBlocks(w *wire.Call, r *fakeReplica) wire.Status {
	data := w.Data
	for i, code := range w.Sums {
		if w.Op == wire.OpAtomic && s.full && chunk.HasData(code) && r.blocks[w.Offset/block.Size+uint32(i)] == nil {
			return wire.NoSpace
		}
	}
	for i, code := range w.Sums {
		no := w.Offset/block.Size + uint32(i)
		r.open = true
		r.mark(no)
		if code == chunk.Absent {
			delete(r.blocks, no)
			continue
		}
		if code == chunk.Zeros {
			r.blocks[no] = make([]byte, block.Size)
			continue
		}
		if s.full && r.blocks[no] == nil {
			return wire.NoSpace
		}
		if chunk.BlockSum(w.Chunk, no, data[:block.Size]) != code {
			return wire.BadSum
		}
		r.blocks[no] = append([]byte(nil), data[:block.Size]...)
		data = data[block.Size:]
	}
	return wire.OK
}

func (r *fakeReplica) mark(no uint32) {
	delete(r.corrupt, no)
	if r.fresh != nil {
		r.fresh[no] = true
	}
}

// put writes bytes.
func (r *fakeReplica) put(_ chunk.ID, offset uint32, data []byte) {
	for len(data) > 0 {
		no, in := offset/block.Size, offset%block.Size
		n := min(block.Size-in, uint32(len(data)))
		b := make([]byte, block.Size)
		copy(b, r.blocks[no])
		copy(b[in:], data[:n])
		r.mark(no)
		r.blocks[no] = b
		offset, data = offset+n, data[n:]
	}
}

func (r *fakeReplica) sync() {
	r.synced = make(map[uint32][]byte, len(r.blocks))
	for no, b := range r.blocks {
		r.synced[no] = b
	}
	r.syncBelow()
}
