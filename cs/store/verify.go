package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

const (
	// verifyRun is the most blocks that one read of a verification asks for.
	verifyRun = 32
	// tablePage is how many codes a raw read of the table has.
	tablePage = disk.RawUnit / chunk.CodeSize
)

// Verified is what a verification of a replica came to.
type Verified struct {
	Blocks uint64 // with data, that match their sums
	Bytes  uint64 // read
	Bad    uint64 // blocks that do not match, or cannot be read; a file that cannot be used at all is one
	Mended uint64 // of these, those that do match now, or are lost
	Lost   uint64 // of these, those that are lost
}

// errChanged: the replica is no more what it was when its verification began.
var errChanged = errors.New("the replica has changed state")

// verifying is one verification of one replica.
type verifying struct {
	s      *Store
	r      *replica
	blocks uint32 // of the replica; as long as its layers are the same, it has as many
	pace   func(bytes int) error
	codes  [tablePage]uint32
	table  []byte // buffers for raw reads
	data   []byte
	block  []byte
	how    *Mending // nil: nothing is mended
	sum    Verified
	bad    []badPart
}

// badPart is a block that does not match its code, or a page of the table that is not on the disk what it is in memory.
type badPart struct {
	l     *layer
	block uint32 // of a page: its first
	page  bool
}

// Verify reads all that a replica in sync has from the disk, and compares it with its sums. It asks pace before each read, and ends with
// its error. What is bad is reported. With how, bad blocks are mended (mend.go). The date is kept, durably.
func (s *Store) Verify(id chunk.ID, pace func(bytes int) error, how *Mending) (Verified, error) {
	if s.closed.Load() {
		return Verified{}, ErrClosed
	}
	r := s.lookup(id)
	if r == nil {
		return Verified{}, about(id, ErrNoChunk)
	}
	v := &verifying{s: s, r: r, pace: pace, how: how, table: disk.Buffer(disk.RawUnit), data: disk.Buffer(verifyRun * chunk.BlockSize),
		block: disk.Buffer(chunk.BlockSize)}
	err := v.all()
	if err == nil && how != nil {
		err = v.mend()
	}
	if err == nil {
		err = s.noteVerified(r)
	}
	return v.sum, about(id, err)
}

func (v *verifying) all() error {
	v.r.mu.RLock()
	err := v.r.verifiable()
	layers := slices.Clone(v.r.layers)
	v.blocks = v.r.blocks
	v.r.mu.RUnlock()
	for i := 0; i < len(layers) && err == nil; i++ {
		err = v.layer(layers[i])
	}
	return err
}

// verifiable says why a replica is not to be verified. Others than those in sync are, when they become so. The caller holds mu.
func (r *replica) verifiable() error {
	switch {
	case r.state == 0 || r.state == removing:
		return ErrNoChunk
	case r.state != InSync:
		return ErrStaleReplica
	case r.failed.Load():
		return ErrIO
	case r.suspect != Sound:
		return ErrSuspect
	}
	return nil
}

// current says whether the layer is still the replica's, and the replica to be verified. The caller holds r.mu.
func (v *verifying) current(l *layer) error {
	if err := v.r.verifiable(); err != nil {
		return err
	}
	if v.r.layer(l.num) != l {
		return errChanged
	}
	return nil
}

func (v *verifying) layer(l *layer) error {
	raw, err := v.s.fs.OpenRaw(v.s.layerName(v.r.id, l.file))
	if err != nil {
		return v.unusable(l, err)
	}
	defer raw.Close()
	if _, err := checkHeader(raw, chunk.Header{ID: v.r.id, Layer: l.file, Blocks: v.blocks}); err != nil {
		return v.unusable(l, err)
	}
	for first := uint32(0); first < v.blocks; first += tablePage {
		if err := v.page(l, raw, first, min(tablePage, v.blocks-first)); err != nil {
			return err
		}
	}
	return nil
}

// unusable reports a file that nothing can be read from, unless that is because the layer is no more.
func (v *verifying) unusable(l *layer, cause error) error {
	v.r.mu.RLock()
	err := v.current(l)
	v.r.mu.RUnlock()
	if err != nil {
		return err
	}
	v.sum.Bad++
	v.s.tell(v.r, fmt.Sprintf("layer %d: %v", l.num, cause), false)
	return nil
}

// page verifies the blocks whose codes are on one page of the table, and that page.
func (v *verifying) page(l *layer, raw disk.Raw, first, n uint32) error {
	if err := v.pace(disk.RawUnit); err != nil {
		return err
	}
	_, readErr := raw.ReadAt(v.table, chunk.CodeOffset(first))
	v.sum.Bytes += disk.RawUnit
	if err := v.load(l, first, n); err != nil {
		return v.notLoaded(err)
	}
	have := v.table[:n*chunk.CodeSize]
	if same := bytes.Equal(have, chunk.EncodeCodes(v.block, v.codes[:n])); readErr != nil || !same {
		if err := v.pageAgain(l, raw, first, n); err != nil {
			return err
		}
	}
	for i := uint32(0); i < n; {
		if !chunk.HasData(v.codes[i]) {
			i++
			continue
		}
		run := uint32(1)
		for run < verifyRun && i+run < n && chunk.HasData(v.codes[i+run]) {
			run++
		}
		if err := v.run(l, raw, first+i, v.codes[i:i+run]); err != nil {
			return err
		}
		i += run
	}
	return nil
}

// notLoaded ends a layer whose table cannot be had; if the disk is to blame, that was reported by whoever tried.
func (v *verifying) notLoaded(err error) error {
	if !errors.Is(err, ErrIO) {
		return err
	}
	v.sum.Bad++
	return nil
}

// load copies codes as they are in memory.
func (v *verifying) load(l *layer, first, n uint32) error {
	return v.with(l, v.r.mu.RLock, v.r.mu.RUnlock, func() error {
		for i := range n {
			v.codes[i] = l.code(first + i)
		}
		return nil
	})
}

// alone calls do while nobody else uses the replica.
func (v *verifying) alone(l *layer, do func() error) error {
	return v.with(l, v.r.mu.Lock, v.r.mu.Unlock, do)
}

// with calls do with r.mu held and the layer ready.
func (v *verifying) with(l *layer, lock, unlock func(), do func() error) error {
	for {
		lock()
		err := v.current(l)
		if err != nil || l.ready() {
			if err == nil {
				err = do()
			}
			unlock()
			return err
		}
		unlock()
		if err := v.s.loadLayers(v.r, func() []*layer {
			if v.r.layer(l.num) != l {
				return nil
			}
			return []*layer{l}
		}); err != nil {
			return err
		}
	}
}

// pageAgain decides whether a page of the table is bad. Reading fails for everybody, so that it is not tried twice.
func (v *verifying) pageAgain(l *layer, raw disk.Raw, first, n uint32) error {
	good := false
	err := v.alone(l, func() error {
		_, err := raw.ReadAt(v.table, chunk.CodeOffset(first))
		part := l.table[first*chunk.CodeSize : (first+n)*chunk.CodeSize]
		good = err == nil && bytes.Equal(v.table[:len(part)], part)
		return nil
	})
	if err != nil || good {
		return err
	}
	v.sum.Bad++
	v.bad = append(v.bad, badPart{l: l, block: first, page: true})
	v.s.tell(v.r, fmt.Sprintf("layer %d: table of blocks %d+%d is not on the disk what it was", l.num, first, n), true)
	return nil
}

// run verifies blocks that lie together.
func (v *verifying) run(l *layer, raw disk.Raw, first uint32, codes []uint32) error {
	p := v.data[:len(codes)*chunk.BlockSize]
	if err := v.pace(len(p)); err != nil {
		return err
	}
	_, readErr := raw.ReadAt(p, chunk.DataOffset(v.blocks, first))
	v.sum.Bytes += uint64(len(p))
	for i, code := range codes {
		block := first + uint32(i)
		if readErr == nil && chunk.Verify(v.r.id, block, code, p[i*chunk.BlockSize:(i+1)*chunk.BlockSize]) {
			v.sum.Blocks++
			continue
		}
		if err := v.blockAgain(l, raw, block); err != nil {
			return err
		}
	}
	return nil
}

// blockAgain decides whether a block is bad. A disk that cannot read it may take long to say so: that is not waited for with the lock held.
func (v *verifying) blockAgain(l *layer, raw disk.Raw, block uint32) error {
	_, readErr := raw.ReadAt(v.block, chunk.DataOffset(v.blocks, block))
	good := false
	err := v.alone(l, func() error {
		good = v.matches(l, raw, block, readErr)
		return nil
	})
	switch {
	case err != nil:
		return err
	case good:
		v.sum.Blocks++
		return nil
	}
	v.sum.Bad++
	v.bad = append(v.bad, badPart{l: l, block: block})
	if readErr != nil {
		v.s.tell(v.r, readErr.Error(), false)
	} else {
		_ = v.s.corrupt(v.r, l.num, block)
	}
	return nil
}

// matches tells whether a block has no data, or such that match; readErr is what reading it has come to. The caller holds r.mu exclusively.
func (v *verifying) matches(l *layer, raw disk.Raw, block uint32, readErr error) bool {
	code := l.code(block)
	if !chunk.HasData(code) {
		return true
	}
	if readErr == nil {
		_, readErr = raw.ReadAt(v.block, chunk.DataOffset(v.blocks, block))
	}
	return readErr == nil && chunk.Verify(v.r.id, block, code, v.block)
}

// noteVerified keeps the date, durably.
func (s *Store) noteVerified(r *replica) error {
	r.ctl.Lock()
	defer r.ctl.Unlock()
	if r.state != InSync {
		return errChanged
	}
	now := time.Now().Unix()
	if err := s.db.commit(Change{Key: idKey(kindVerified, r.id), Value: encodeUint64(uint64(now))}); err != nil {
		return err
	}
	r.verified.Store(now)
	return nil
}
