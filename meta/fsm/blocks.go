package fsm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/bits"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// BlockSpan is the number of chunks that one entry of "replicas" or "garbage" covers. Part of the format.
const BlockSpan = 512

// Block is a set of chunks of one file: bit i stands for index Number*BlockSpan+i.
type Block struct {
	File   uint64
	Number uint32
	Bits   [BlockSpan / 64]uint64
}

// Each calls yield for each chunk of the block, in order, until it returns false.
func (b *Block) Each(yield func(index uint32) bool) bool {
	for w, word := range b.Bits {
		for ; word != 0; word &= word - 1 {
			if !yield(b.Number*BlockSpan + uint32(w*64+bits.TrailingZeros64(word))) {
				return false
			}
		}
	}
	return true
}

// Set adds a chunk of the block's range.
func (b *Block) Set(index uint32) { b.Bits[index%BlockSpan/64] |= 1 << (index % 64) }

// Clear takes a chunk out.
func (b *Block) Clear(index uint32) { b.Bits[index%BlockSpan/64] &^= 1 << (index % 64) }

// Has tells whether a chunk of the block's range is in it.
func (b *Block) Has(index uint32) bool { return b.Bits[index%BlockSpan/64]&(1<<(index%64)) != 0 }

// Count is the number of chunks in it.
func (b *Block) Count() (n int) {
	for _, word := range b.Bits {
		n += bits.OnesCount64(word)
	}
	return n
}

// Empty tells whether there is none.
func (b *Block) Empty() bool { return b.Bits == [BlockSpan / 64]uint64{} }

const blockBytes = BlockSpan / 8

func (b *Block) encode() []byte {
	out := make([]byte, 0, blockBytes)
	for _, w := range b.Bits {
		out = binary.LittleEndian.AppendUint64(out, w)
	}
	return out
}

func decodeBits(v []byte, b *Block) error {
	if len(v) != blockBytes {
		return fmt.Errorf("set of chunks has %d bytes: %w", len(v), ErrCorrupt)
	}
	for i := range b.Bits {
		b.Bits[i] = binary.LittleEndian.Uint64(v[8*i:])
	}
	return nil
}

func blockKey(server uint32, file uint64, number uint32) []byte {
	return binary.BigEndian.AppendUint32(fileKey(server, file), number)
}

func fileKey(server uint32, file uint64) []byte {
	return binary.BigEndian.AppendUint64(serverKey(server), file)
}

// blockID names an entry of one of the two buckets.
type blockID struct {
	bucket *bolt.Bucket
	server uint32
	file   uint64
	number uint32
}

// block returns an entry, empty if there is none. It is stored by storeBlocks: a batch changes the same ones again and again.
func (tx *txn) block(b *bolt.Bucket, server uint32, k ChunkKey) *Block {
	id := blockID{b, server, k.File, k.Index / BlockSpan}
	if blk := tx.blocks[id]; blk != nil {
		return blk
	}
	blk := &Block{File: id.file, Number: id.number}
	if v := b.Get(blockKey(server, blk.File, blk.Number)); v != nil {
		if err := decodeBits(v, blk); err != nil {
			tx.fail(err)
		}
	}
	tx.blocks[id] = blk
	return blk
}

func (tx *txn) setBit(b *bolt.Bucket, server uint32, k ChunkKey) { tx.block(b, server, k).Set(k.Index) }

func (tx *txn) clearBit(b *bolt.Bucket, server uint32, k ChunkKey) {
	tx.block(b, server, k).Clear(k.Index)
}

// storeBlocks stores what setBit and clearBit have changed. It comes before anything that walks the two buckets.
func (tx *txn) storeBlocks() {
	for id, blk := range tx.blocks {
		key := blockKey(id.server, id.file, id.number)
		if blk.Empty() {
			tx.delete(id.bucket, key)
			continue
		}
		tx.put(id.bucket, key, blk.encode())
	}
	clear(tx.blocks)
}

// eachBlock calls yield for the blocks whose keys begin with prefix and are not before from (nil: all), until it returns false.
func (tx *txn) eachBlock(b *bolt.Bucket, prefix, from []byte, yield func(server uint32, blk *Block) bool) {
	if from == nil {
		from = prefix
	}
	c := b.Cursor()
	var blk Block
	for k, v := c.Seek(from); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		blk.File, blk.Number = binary.BigEndian.Uint64(k[4:]), binary.BigEndian.Uint32(k[12:])
		if err := decodeBits(v, &blk); err != nil {
			tx.fail(err)
			return
		}
		if !yield(binary.BigEndian.Uint32(k), &blk) {
			return
		}
	}
}

// keysWith returns the keys that begin with prefix.
func keysWith(b *bolt.Bucket, prefix []byte) (keys [][]byte) {
	c := b.Cursor()
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		keys = append(keys, slices.Clone(k))
	}
	return keys
}
