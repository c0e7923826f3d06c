package scsi

import (
	"bytes"
	"context"
	"encoding/binary"

	"pstorage/blockstore/block"
)

// Limits of the commands that give up space, reported in the block limits page.
const (
	maxUnmap            = 512 << 20 // bytes in one UNMAP, over all its descriptors
	maxUnmapDescriptors = 256
	maxWriteSame        = 1 << 30 // bytes
	maxLBADescriptors   = 1024
	unmapHeader         = 8
	unmapDescriptor     = 16
	lbaStatusHeader     = 8
	lbaStatusDescriptor = 16
)

const (
	flagAnchor = 0x10
	flagUnmap  = 0x08
	flagNDOB   = 0x01
)

func provisioningCommands() []command {
	return []command{
		{op: opUnmap, action: -1, name: "UNMAP", class: UnmapData, traits: medium | writes,
			usage:   []byte{opUnmap, 0x01, 0, 0, 0, 0, 0x3f, 0xff, 0xff, 0x07},
			prepare: prepareUnmap, start: startUnmap, step: stepUnmap},
		{op: opWriteSame10, action: -1, name: "WRITE SAME(10)", class: UnmapData, traits: medium | writes,
			usage: usage10(opWriteSame10, 0xf8), prepare: prepareWriteSame, start: startWriteSame, step: stepWriteSame},
		{op: opWriteSame16, action: -1, name: "WRITE SAME(16)", class: UnmapData, traits: medium | writes,
			usage: usage16(opWriteSame16, 0xf9), prepare: prepareWriteSame, start: startWriteSame, step: stepWriteSame},
		{op: opServiceIn16, action: saGetLBAStatus, name: "GET LBA STATUS", traits: medium | reserveRead | mayBlock,
			usage:   []byte{opServiceIn16, saGetLBAStatus, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0x07},
			prepare: prepareLBAStatus, start: startBlocking},
	}
}

func prepareUnmap(t *Task) {
	if t.CDB[1]&1 != 0 { // ANCHOR
		t.badField(1)
		return
	}
	n := t.u16(7)
	if n != 0 && n < unmapHeader {
		t.fail(keyIllegal, ascParameterListLength)
		return
	}
	t.wantOut(n)
}

func startUnmap(t *Task) bool {
	if t.OutLen == 0 {
		return true
	}
	if !t.checkUnmap() {
		return true
	}
	return t.unmapNext()
}

func (t *Task) unmapDescriptors() int {
	n := int(binary.BigEndian.Uint16(t.Buf[2:]))
	return min(n, t.OutLen-unmapHeader) / unmapDescriptor
}

func (t *Task) unmapRange(i int) (lba, blocks uint64) {
	d := t.Buf[unmapHeader+i*unmapDescriptor:]
	return binary.BigEndian.Uint64(d), uint64(binary.BigEndian.Uint32(d[8:]))
}

// checkUnmap looks at all descriptors before the first is executed.
func (t *Task) checkUnmap() bool {
	n := t.unmapDescriptors()
	if n > maxUnmapDescriptors {
		t.badParam(2)
		return false
	}
	capacity, total := t.lu.capacity(), uint64(0)
	for i := range n {
		lba, blocks := t.unmapRange(i)
		if lba > capacity || blocks > capacity-lba {
			t.failInfo(keyIllegal, ascRange, max(lba, capacity))
			return false
		}
		if total += blocks; total > t.lu.inBlocks(maxUnmap) {
			t.badParam(unmapHeader + i*unmapDescriptor + 8)
			return false
		}
	}
	return true
}

// unmapNext makes the request of the next descriptor that has blocks; pos counts descriptors.
func (t *Task) unmapNext() bool {
	for n := int64(t.unmapDescriptors()); t.pos < n; {
		lba, blocks := t.unmapRange(int(t.pos))
		t.pos++
		if blocks > 0 {
			t.request(block.Discard, t.lu.inBytes(lba), nil, t.lu.inBytes(blocks))
			t.durable(false)
			return false
		}
	}
	return true
}

func stepUnmap(t *Task) bool {
	if t.Req.Err != nil {
		t.deviceError()
		return true
	}
	return t.unmapNext()
}

func prepareWriteSame(t *Task) {
	t.decode()
	noData := t.cmd.op == opWriteSame16 && t.CDB[1]&flagNDOB != 0
	switch {
	case t.CDB[1]&(flagProtect|flagAnchor) != 0:
		t.badField(1)
	case t.blocks == 0: // WSNZ: not up to the end. Some take that for UNMAP whatever the data, and the standard for writing them.
		t.badField(t.blocksField())
	case !t.inRange():
	case t.blocks > t.lu.inBlocks(maxWriteSame):
		t.badField(t.blocksField())
	case noData:
	case t.OutMax > t.lu.blockSize:
		t.OutWant = t.lu.blockSize
		t.badField(0)
	default:
		t.wantOut(t.lu.blockSize)
	}
}

// startWriteSame writes zeros with one request, without data on the way, and anything else piece by piece.
func startWriteSame(t *Task) bool {
	if t.OutLen == 0 || allZero(t.Buf[:t.OutLen]) {
		t.request(block.WriteZeroes, t.offset(), nil, t.lu.inBytes(t.blocks))
		if t.CDB[1]&flagUnmap == 0 {
			t.Req.Flags |= block.NoUnmap
		}
		t.durable(false)
		t.pos = t.Req.Length
		return false
	}
	scratch := t.takeScratch()
	for i := 0; i < len(scratch); i += t.lu.blockSize {
		copy(scratch[i:], t.Buf[:t.lu.blockSize])
	}
	t.writeSameNext()
	return false
}

func (t *Task) writeSameNext() {
	n := min(int64(scratchSize), t.lu.inBytes(t.blocks)-t.pos)
	t.request(block.Write, t.offset()+t.pos, t.scratch[:n], n)
	t.durable(false)
	t.pos += n
}

func stepWriteSame(t *Task) bool {
	if t.Req.Err != nil {
		t.deviceError()
		return true
	}
	if t.pos == t.lu.inBytes(t.blocks) {
		return true
	}
	t.writeSameNext()
	return false
}

func allZero(b []byte) bool { return len(b) == 0 || b[0] == 0 && bytes.Equal(b[1:], b[:len(b)-1]) }

func prepareLBAStatus(t *Task) {
	t.lba, t.blocks = t.u64(2), 0
	if t.inRange() {
		t.wantIn(min(int(min(t.u32(10), 1<<20)), lbaStatusHeader+maxLBADescriptors*lbaStatusDescriptor))
	}
}

// lbaStatus asks the device.
func (t *Task) lbaStatus(ctx context.Context) error {
	allocation := int(min(t.u32(10), 1<<20))
	most := min(max((allocation-lbaStatusHeader)/lbaStatusDescriptor, 1), maxLBADescriptors)
	length := t.lu.inBytes(t.lu.capacity() - min(t.lba, t.lu.capacity()))
	extents, err := t.lu.dev.Extents(ctx, t.offset(), length, most)
	if err == nil {
		t.reply(t.lu.lbaStatusData(extents, t.lba), allocation)
	}
	return err
}

// lbaStatusData draws the descriptors, joining extents of the same status.
func (u *LU) lbaStatusData(extents []block.Extent, lba uint64) []byte {
	b := make([]byte, lbaStatusHeader, lbaStatusHeader+len(extents)*lbaStatusDescriptor)
	for i := 0; i < len(extents); {
		status, blocks := provisioning(extents[i]), uint64(0)
		for ; i < len(extents) && provisioning(extents[i]) == status; i++ {
			blocks += u.inBlocks(extents[i].Length)
		}
		b = binary.BigEndian.AppendUint64(b, lba)
		b = binary.BigEndian.AppendUint32(b, uint32(min(blocks, 1<<32-1)))
		b = append(b, status, 0, 0, 0)
		if lba += blocks; blocks > 1<<32-1 {
			break
		}
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// provisioning status of GET LBA STATUS: mapped or deallocated.
func provisioning(e block.Extent) byte {
	if e.Allocated {
		return 0
	}
	return 1
}
