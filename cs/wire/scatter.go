package wire

import "pstorage/cs/chunk"

// scatter verifies the packed data of a read and puts each block in its place; the others become zeros.
func scatter(call *Call, data []byte) {
	first := call.Offset / chunk.BlockSize
	for i, code := range call.Codes {
		dst := call.Dst[i*chunk.BlockSize:][:chunk.BlockSize]
		if !chunk.HasData(code) {
			empty(call, first+uint32(i), code, dst)
			continue
		}
		copy(dst, data)
		data = data[chunk.BlockSize:]
		verify(call, first+uint32(i), code, dst)
	}
}

// spread does the same when the packed data are at the start of Dst already: from the last block to the first, as each moves up or stays.
func spread(call *Call) {
	first := call.Offset / chunk.BlockSize
	from := dataBlocks(call.Codes)
	for i := len(call.Codes) - 1; i >= 0; i-- {
		dst := call.Dst[i*chunk.BlockSize:][:chunk.BlockSize]
		if !chunk.HasData(call.Codes[i]) {
			empty(call, first+uint32(i), call.Codes[i], dst)
			continue
		}
		from--
		if from != i {
			copy(dst, call.Dst[from*chunk.BlockSize:][:chunk.BlockSize])
		}
		verify(call, first+uint32(i), call.Codes[i], dst)
	}
}

// empty is the place of a block without data. A read of one that is lost has failed; whoever copies layers goes by the codes.
func empty(call *Call, block, code uint32, dst []byte) {
	clear(dst)
	if code == chunk.Lost && call.Op == OpRead && call.Status == OK {
		call.Status, call.Aux0 = Lost, uint64(block)
	}
}

func verify(call *Call, block, code uint32, data []byte) {
	if chunk.BlockSum(call.Chunk, block, data) != code {
		call.Status, call.Aux0 = Corrupt, uint64(block)
	}
}
