package blockstore

import "pstorage/blockstore/block"

// cutsBlocks tells whether a request changes parts of blocks of a clone. A chunk server cannot put such a part into a block that it does not have: so the block is
// read, and written as a whole.
func (v *Volume) cutsBlocks(r *block.Request) bool {
	return v.under.Load() != nil && (r.Offset|r.Length)%block.Size != 0 && r.Length > 0
}

// changeHeld does a request that changes data within a range that is held: in a clone, in whole blocks.
func (v *Volume) changeHeld(r *block.Request) error {
	if !v.cutsBlocks(r) {
		return v.changePart(r, r.Op, r.Offset, r.Length, r.Data)
	}
	for at, end := r.Offset, r.Offset+r.Length; at < end; {
		n := min(end-at, block.Size-at%block.Size)
		var err error
		if n < block.Size {
			err = v.mergeBlock(r, at, n)
		} else {
			n = (end - at) &^ (block.Size - 1)
			err = v.changePart(r, r.Op, at, n, part(r, at, n))
		}
		if err != nil {
			return err
		}
		at += n
	}
	return nil
}

// changePart does a request of our own in place of a part of another.
func (v *Volume) changePart(r *block.Request, op block.Op, at, n int64, data []byte) error {
	own := &block.Request{Op: op, Flags: r.Flags, Offset: at, Length: n, Data: data}
	v.runHeld(own)
	return own.Err
}

// mergeBlock changes n bytes of a block.
func (v *Volume) mergeBlock(r *block.Request, at, n int64) error {
	in := at % block.Size
	whole := &block.Request{Op: block.Read, Offset: at - in, Length: block.Size, Data: make([]byte, block.Size)}
	if v.runHeld(whole); whole.Err != nil {
		return whole.Err
	}
	zeroes := r.Op != block.Write
	if zeroes {
		clear(whole.Data[in : in+n])
	} else {
		copy(whole.Data[in:in+n], r.Data[at-r.Offset:])
	}
	if zeroes && isZero(whole.Data) {
		return v.changePart(r, r.Op, at-in, block.Size, nil)
	}
	return v.changePart(r, block.Write, at-in, block.Size, whole.Data)
}

// part is the data of a part of a request, if it has any.
func part(r *block.Request, at, n int64) []byte {
	if r.Op != block.Write {
		return nil
	}
	return r.Data[at-r.Offset:][:n]
}

func isZero(data []byte) bool {
	for _, b := range data {
		if b != 0 {
			return false
		}
	}
	return true
}
