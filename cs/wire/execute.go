package wire

import (
	"cmp"
	"slices"
	"time"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
)

// inPlaceMax is the most bytes of a read that is done by the connection's goroutine.
const inPlaceMax = 256 << 10

// work is the scratch memory of one executing goroutine: replies are appended to out.
type work struct {
	sums  []uint32
	codes []uint32
	out   []byte
}

// replySpace is the most bytes a request's reply takes; that of a fence, whose list may be long, is counted as little.
func replySpace(r *request) int {
	blocks := int(r.length / chunk.BlockSize)
	switch r.op {
	case OpRead, OpReadLayer:
		return ReplySize + min(blocks*(4+chunk.BlockSize), MaxPayload)
	case OpTable, OpTableLayer:
		return ReplySize + min(4*blocks, MaxPayload)
	}
	return ReplySize
}

// inPlace reports whether the request is one that the connection's goroutine should try itself.
func (sc *serverConn) inPlace(r *request) bool {
	switch r.op {
	case OpRead:
		return r.length <= inPlaceMax
	case OpWrite:
		return r.flags&FlagSync == 0 && (sc.srv.ready == nil || sc.srv.ready.Ready(r.chunk, r.layer))
	case OpPing:
		return true
	}
	return false
}

// execute does the request and appends its reply. It reports false, with nothing done, if nowait is set and it would have to wait.
func (w *work) execute(sc *serverConn, r *request, payload []byte, nowait, timed bool) bool {
	var begin time.Time
	if timed {
		begin = time.Now()
	}
	start := len(w.out)
	w.out = slices.Grow(w.out, replySpace(r))[:start+ReplySize]
	rep := reply{op: r.op, id: r.id}
	rep.status = sc.refusal(r, payload)
	if rep.status == OK {
		if err := w.apply(sc, r, payload, &rep, nowait); err == store.ErrWouldBlock {
			w.out = w.out[:start]
			return false
		} else if err != nil {
			rep.status, rep.aux0 = statusOf(err)
		}
	}
	if rep.status != OK {
		w.out, rep.sums = w.out[:start+ReplySize], 0
	}
	rep.payload = uint32(len(w.out) - start - ReplySize)
	rep.put(w.out[start:])
	sc.srv.stats.count(r, rep.status)
	if timed {
		sc.srv.stats.Latency[r.op.index()].Observe(time.Since(begin))
	}
	return true
}

// count counts an answered request.
func (s *Stats) count(r *request, status Status) {
	op := r.op.index()
	s.Ops[op].Add(1)
	s.Bytes[op].Add(uint64(r.length))
	if status != OK {
		s.Status[status].Add(1)
	}
}

// refusal is OK if the request may go to the engine.
func (sc *serverConn) refusal(r *request, payload []byte) Status {
	peer := sc.hello.Peer
	switch {
	case r.op == OpPing:
		return OK
	case !sc.srv.admitted.Load():
		return NotAdmitted
	case !r.fits(len(payload)):
		return BadRequest
	case r.flags&FlagFrozen != 0 && (peer || r.op != OpRead && r.op != OpTable && r.op != OpTableLayer):
		return BadRequest
	case !peer && (r.flags&(FlagPeer|FlagSuspect|FlagFormer) != 0 || r.epoch == 0 && r.flags&FlagFrozen == 0): // epoch 0 is the metadata servers' alone
		return BadRequest
	}
	switch r.op {
	case OpReadLayer, OpTableLayer:
		if !peer && r.flags&FlagFrozen == 0 {
			return BadRequest
		}
	case OpRead, OpTable:
	default:
		if peer {
			return BadRequest
		}
	}
	return OK
}

// fits reports whether the parts of the request fit together.
func (r *request) fits(payload int) bool {
	blocks := int(r.length / chunk.BlockSize)
	aligned := r.length%chunk.BlockSize == 0 && r.offset%chunk.BlockSize == 0 && blocks > 0
	data := payload - 4*int(r.sums)
	switch r.op {
	case OpWrite:
		return data == int(r.length) && data > 0 && data <= MaxData && int(r.sums) == blocksTouched(r.offset, r.length)
	case OpAtomic:
		return aligned && data <= MaxData && int(r.sums) == blocks
	case OpRead, OpReadLayer:
		return payload == 0 && aligned && r.length <= MaxData
	case OpTable, OpTableLayer:
		return payload == 0 && aligned && blocks <= MaxSums
	case OpZero:
		return payload == 0 && r.length > 0
	case OpFlush, OpFence:
		return payload == 0
	case OpRaise, OpSettle:
		return r.sums == 0
	}
	return false
}

// apply has the engine do the request and appends the payload of the reply.
func (w *work) apply(sc *serverConn, r *request, payload []byte, rep *reply, nowait bool) (err error) {
	e := sc.srv.cfg.Engine
	a := store.Access{Epoch: r.epoch, Version: r.version, Layer: r.layer, Peer: r.flags&FlagPeer != 0, Suspect: r.flags&FlagSuspect != 0,
		Former: r.flags&FlagFormer != 0, Frozen: r.flags&FlagFrozen != 0, Over: r.flags&FlagOver != 0}
	if r.op == OpReadLayer || r.op == OpTableLayer {
		a.Epoch, a.Below = 0, uint32(min(r.epoch, uint64(r.layer)))
	}
	switch r.op {
	case OpRead, OpReadLayer:
		return w.read(sc, r, a, rep, nowait)
	case OpWrite:
		w.sums = getSums(w.sums, payload, int(r.sums))
		return e.Write(r.chunk, a, r.offset, payload[4*len(w.sums):], w.sums, r.flags&FlagSync != 0)
	case OpZero:
		return e.Zero(r.chunk, a, r.offset, r.length, r.flags&FlagSync != 0)
	case OpAtomic:
		return w.writeAtomic(e, r, a, payload)
	case OpTable, OpTableLayer:
		return w.table(e, r, a, rep)
	case OpFlush:
		return e.Flush(r.chunk.File, r.epoch)
	case OpFence:
		return w.fence(e, r, rep)
	case OpRaise, OpSettle:
		return applyList(e, r, payload)
	}
	return nil // OpPing
}

func (w *work) read(sc *serverConn, r *request, a store.Access, rep *reply, nowait bool) (err error) {
	e, blocks := sc.srv.cfg.Engine, int(r.length/chunk.BlockSize)
	w.codes = slices.Grow(w.codes[:0], blocks)[:blocks]
	at := len(w.out)
	w.out = w.out[:at+4*blocks]
	var out []byte
	if r.op == OpRead {
		out, err = e.Read(r.chunk, a, r.offset, r.length, w.codes, w.out, nowait)
	} else {
		out, err = e.ReadLayer(r.chunk, a, r.offset, r.length, w.codes, w.out)
	}
	if err != nil {
		return err
	}
	if r.op == OpReadLayer && sc.srv.cfg.Busy != nil && sc.srv.cfg.Busy() {
		rep.aux0 = Busy
	}
	w.out = out
	appendSums(w.out[:at], w.codes)
	rep.sums = uint16(blocks)
	return nil
}

func (w *work) writeAtomic(e store.Engine, r *request, a store.Access, payload []byte) error {
	w.sums = getSums(w.sums, payload, int(r.sums))
	data := payload[4*len(w.sums):]
	if len(data) != chunk.BlockSize*dataBlocks(w.sums) {
		return store.ErrInvalid
	}
	return e.WriteAtomic(r.chunk, a, r.offset, w.sums, data)
}

func (w *work) table(e store.Engine, r *request, a store.Access, rep *reply) error {
	blocks := int(r.length / chunk.BlockSize)
	w.codes = slices.Grow(w.codes[:0], blocks)[:blocks]
	if err := e.Table(r.chunk, a, r.offset, r.length, w.codes, r.op == OpTableLayer); err != nil {
		return err
	}
	at := len(w.out)
	w.out = appendSums(w.out, w.codes)
	rep.sums, rep.aux0 = uint16(blocks), uint64(crc(w.out[at:]))
	return nil
}

// fence answers with the open chunks from the index in offset on, as many as fit.
func (w *work) fence(e store.Engine, r *request, rep *reply) error {
	open, err := e.Fence(r.chunk.File, r.epoch)
	if err != nil {
		return err
	}
	slices.SortFunc(open, func(a, b store.ChunkVersion) int { return cmp.Compare(a.Index, b.Index) })
	from, _ := slices.BinarySearchFunc(open, r.offset, func(c store.ChunkVersion, i uint32) int { return cmp.Compare(c.Index, i) })
	open = open[from:]
	list := open[:min(len(open), MaxList)]
	rep.aux0 = uint64(len(open) - len(list))
	w.out = AppendChunkVersions(w.out, list)
	return nil
}

func applyList(e store.Engine, r *request, payload []byte) error {
	list, err := DecodeChunkVersions(payload)
	if err != nil {
		return store.ErrInvalid
	}
	if r.op == OpRaise {
		return e.Raise(r.chunk.File, r.epoch, list)
	}
	return e.Settle(r.chunk.File, r.epoch, list)
}
