package sim

import (
	"encoding/binary"
	"fmt"

	"pstorage/blockstore/block"
)

const (
	chunkSize    = 1 << 20
	chunkSectors = chunkSize / block.SectorSize
	blockSectors = block.Size / block.SectorSize
)

// A sector that was written holds its value in every word, mixed with its place, so that torn and misplaced ones show. Value 0 is zeros.

func word(id uint64, sector int64, i int) uint64 {
	return id<<32 | uint64(sector)<<8&0xffffff00 | uint64(i)
}

func fillSectors(data []byte, id uint64, first int64) {
	if id == 0 {
		clear(data)
		return
	}
	for at := 0; at < len(data); at += 8 {
		binary.LittleEndian.PutUint64(data[at:], word(id, first+int64(at/block.SectorSize), at%block.SectorSize/8))
	}
}

// readSectors returns the value of each sector.
func readSectors(data []byte, first int64) ([]uint64, error) {
	ids := make([]uint64, len(data)/block.SectorSize)
	for n := range ids {
		s := data[n*block.SectorSize:][:block.SectorSize]
		id := binary.LittleEndian.Uint64(s) >> 32
		for i := range block.SectorSize / 8 {
			want := word(id, first+int64(n), i)
			if id == 0 {
				want = 0
			}
			if got := binary.LittleEndian.Uint64(s[8*i:]); got != want {
				return nil, fmt.Errorf("sector %d is none that was ever written: word %d is %x, the first %x", first+int64(n), i, got, id)
			}
		}
		ids[n] = id
	}
	return ids, nil
}
