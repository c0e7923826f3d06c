package wire

import (
	"bytes"
	"slices"
	"testing"

	"pstorage/cs/chunk"
)

// A read of a lost block fails; a copier of layers gets its code. The blocks beside it come either way, and one that does not verify matters more.
func TestReadingALostBlockFails(t *testing.T) {
	id := chunk.ID{File: 3, Index: 1}
	data := bytes.Repeat([]byte{7}, chunk.BlockSize)
	good := chunk.BlockSum(id, 6, data)
	for _, c := range []struct {
		op    Op
		codes []uint32
		want  Status
		block uint64
	}{
		{OpRead, []uint32{chunk.Zeros, chunk.Lost, good}, Lost, 5},
		{OpReadLayer, []uint32{chunk.Zeros, chunk.Lost, good}, OK, 0},
		{OpRead, []uint32{chunk.Zeros, chunk.Absent, good}, OK, 0},
		{OpRead, []uint32{chunk.Lost, chunk.Lost, good + 1}, Corrupt, 6},
	} {
		for name, place := range map[string]func(*Call){
			"scatter": func(call *Call) { scatter(call, data) },
			"spread":  func(call *Call) { copy(call.Dst, data); spread(call) },
		} {
			call := &Call{Op: c.op, Chunk: id, Offset: 4 * chunk.BlockSize, Codes: slices.Clone(c.codes), Dst: bytes.Repeat([]byte{9}, 3*chunk.BlockSize)}
			place(call)
			if call.Status != c.want || call.Aux0 != c.block || !bytes.Equal(call.Dst[2*chunk.BlockSize:], data) || call.Dst[chunk.BlockSize] != 0 {
				t.Errorf("%s, %v of %x: status %v, %d", name, c.op, c.codes, call.Status, call.Aux0)
			}
		}
	}
}
