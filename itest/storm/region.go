package storm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
)

const sectorSize = 512

// region is a part of a LUN that one user writes, with what each sector may have.
type region struct {
	lun     int
	first   uint64 // sector
	seed    uint64 // tells regions apart
	sectors []sector
	version uint32 // of the last write
}

// sector has the version sure, or one of maybe. Version 0 are zeros.
type sector struct {
	sure  uint32
	maybe []uint32
}

func newRegion(lun int, first uint64, sectors int, seed uint64) *region {
	return &region{lun: lun, first: first, seed: seed, sectors: make([]sector, sectors)}
}

// content makes what version v of sectors from at on is: each 16 bytes tell where they belong and which they are.
func (r *region) content(at, sectors int, v uint32) []byte {
	b := make([]byte, 0, sectors*sectorSize)
	if v == 0 {
		return b[:cap(b)]
	}
	for i := range sectors {
		for range sectorSize / 16 {
			b = binary.BigEndian.AppendUint64(b, r.first+uint64(at+i))
			b = binary.BigEndian.AppendUint64(b, r.seed<<32^uint64(v))
		}
	}
	return b
}

// next is the version of a new write.
func (r *region) next() uint32 {
	r.version++
	return r.version
}

// acknowledged: the sectors have this version.
func (r *region) acknowledged(at, sectors int, v uint32) {
	for i := range sectors {
		r.sectors[at+i] = sector{sure: v}
	}
}

// unsure: they may have it, each by itself. It can come no more.
func (r *region) unsure(at, sectors int, v uint32) {
	for i := range sectors {
		x := &r.sectors[at+i]
		x.maybe = append(x.maybe, v)
	}
}

// check compares what was read with what may be there. What is there then stays.
func (r *region) check(at int, data []byte) error {
	for i := range len(data) / sectorSize {
		b, x := data[i*sectorSize:][:sectorSize], &r.sectors[at+i]
		v := uint32(0)
		if word := binary.BigEndian.Uint64(b[8:]); word != 0 {
			v = uint32(word ^ r.seed<<32)
		}
		if !bytes.Equal(b, r.content(at+i, 1, v)) {
			return fmt.Errorf("LUN %d, sector %d: bytes of nobody: % x", r.lun, r.first+uint64(at+i), b[:32])
		}
		if v != x.sure && !slices.Contains(x.maybe, v) {
			return fmt.Errorf("LUN %d, sector %d: version %d; must be %d or of %v", r.lun, r.first+uint64(at+i), v, x.sure, x.maybe)
		}
		*x = sector{sure: v}
	}
	return nil
}
