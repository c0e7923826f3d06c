package scsi

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pstorage/blockstore/block"
)

// couple are the logical units of a target.
type couple []*LU

func (c *couple) EachPeer(f func(*LU) bool) {
	for _, u := range *c {
		if !f(u) {
			return
		}
	}
}

// coupled makes two logical units that know each other, the second with blocks of 4096 bytes; one initiator uses both.
func coupled(t *testing.T, second Port) (a, b *rig) {
	t.Helper()
	all := &couple{}
	a = newRig(t, Options{Peers: all})
	mem := block.NewMemory(testSize)
	lu := NewLU(mem, block.VolumeInfo{Name: "w", ID: [16]byte{9}}, Options{Peers: all, BlockSize: 4096})
	t.Cleanup(lu.Close)
	n := lu.Attach(second, nil)
	n.takeAttention()
	*all = append(*all, a.lu, lu)
	return a, &rig{t: t, mem: mem, lu: lu, Nexus: n}
}

var sameHost = Port{Initiator: "iqn.test:a,i,0x000000000002", Target: "iqn.test:w"}

func cscd(naa []byte, blockSize int) []byte {
	b := make([]byte, cscdSize)
	b[0], b[4], b[5], b[7] = cscdByName, binaryCode, typeNAA, byte(len(naa))
	copy(b[8:], naa)
	binary.BigEndian.PutUint32(b[28:], uint32(blockSize))
	return b
}

func blocks(dc byte, from, to uint16, n uint16, source, target uint64) []byte {
	b := make([]byte, 28)
	b[0], b[1], b[3] = segmentBlock, dc, 24
	binary.BigEndian.PutUint16(b[4:], from)
	binary.BigEndian.PutUint16(b[6:], to)
	binary.BigEndian.PutUint16(b[10:], n)
	binary.BigEndian.PutUint64(b[12:], source)
	binary.BigEndian.PutUint64(b[20:], target)
	return b
}

func copyList(id byte, targets, segments [][]byte) []byte {
	b := make([]byte, copyHeader)
	b[0] = id
	for _, d := range targets {
		b = append(b, d...)
	}
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)-copyHeader))
	before := len(b)
	for _, d := range segments {
		b = append(b, d...)
	}
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-before))
	return b
}

func copyCDB(list []byte) []byte {
	b := make([]byte, 16)
	b[0] = opExtendedCopy
	binary.BigEndian.PutUint32(b[10:], uint32(len(list)))
	return b
}

func TestCopyBetweenUnitsOfDifferentBlockSize(t *testing.T) {
	a, b := coupled(t, sameHost)
	data := pattern(2*copyPiece/512+8, 3)
	copy(data[copyPiece:], make([]byte, 64<<10))
	a.good(cdb16(opWrite16, 0, 8, uint32(len(data)/512)), data)
	both := [][]byte{cscd(a.lu.naa(), 512), cscd(b.lu.naa(), 4096)}
	list := copyList(5, both, [][]byte{
		blocks(0, 0, 1, uint16(len(data)/512), 8, 3),
		blocks(2, 1, 0, 2, 3, 7000), // counted in the destination's blocks
	})
	a.good(copyCDB(list), list)
	got := b.in(cdb16(opRead16, 0, 3, uint32(len(data)/4096)), len(data))
	if !bytes.Equal(got, data[:len(got)]) {
		t.Error("other data at the destination")
	}
	if got := a.read(7000, 2); !bytes.Equal(got, data[:1024]) {
		t.Error("other data copied back")
	}
	status := a.in([]byte{opCopyResults, saCopyStatus, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0}, 12)
	if status[4] != 1 || status[6] != 2 || binary.BigEndian.Uint32(status[8:]) != uint32(len(data)+1024+1023)>>10 {
		t.Errorf("status % x", status)
	}
	a.bad(keyIllegal, ascInvalidFieldCDB, []byte{opCopyResults, saCopyStatus, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0}, nil)
}

func TestCopyIsRefusedBeforeAnythingIsCopied(t *testing.T) {
	a, b := coupled(t, sameHost)
	both := [][]byte{cscd(a.lu.naa(), 512), cscd(b.lu.naa(), 4096)}
	good := blocks(0, 0, 0, 8, 0, 100)
	a.good(cdb16(opWrite16, 0, 0, 8), pattern(8, 1))
	many := func(d []byte, n int) (all [][]byte) {
		for range n {
			all = append(all, d)
		}
		return all
	}
	strange := append([]byte{0xe0}, make([]byte, cscdSize-1)...)
	for what, x := range map[string]struct {
		list []byte
		key  byte
		code code
	}{
		"too many units":     {copyList(0, many(both[0], maxCopyTargets+1), [][]byte{good}), keyIllegal, ascManyTargets},
		"too many segments":  {copyList(0, both, many(good, maxCopySegments+1)), keyIllegal, ascManySegments},
		"list too long":      {copyList(0, both, many(good, maxCopyList/28+1))[:copyHeader+maxCopyList], keyIllegal, ascParameterListLength},
		"unit by other name": {copyList(0, [][]byte{strange}, [][]byte{good}), keyIllegal, ascTargetType},
		"other segment":      {copyList(0, both, [][]byte{good, append([]byte{1}, good[1:]...)}), keyIllegal, ascSegmentType},
		"no such index":      {copyList(0, both, [][]byte{good, blocks(0, 0, 2, 8, 0, 0)}), keyCopyAborted, ascUnreachable},
		"unknown unit":       {copyList(0, [][]byte{cscd(make([]byte, 8), 512)}, [][]byte{good}), keyCopyAborted, ascUnreachable},
		"beyond the end":     {copyList(0, both, [][]byte{good, blocks(0, 0, 0, 8, 0, testSize/512-7)}), keyCopyAborted, noSense},
		"cut off":            {copyList(0, both, [][]byte{good})[:90], keyIllegal, ascParameterListLength},
	} {
		t.Run(what, func(t *testing.T) { a.bad(x.key, x.code, copyCDB(x.list), x.list) })
	}
	if !allZero(a.read(100, 8)) {
		t.Error("something was copied")
	}
	a.good(copyCDB(nil), nil)
}

func TestCopyReachesOnlyWhatTheInitiatorMayUse(t *testing.T) {
	a, b := coupled(t, Port{Initiator: "iqn.test:other,i,0x1", Target: "iqn.test:w"})
	list := copyList(0, [][]byte{cscd(a.lu.naa(), 512), cscd(b.lu.naa(), 4096)}, [][]byte{blocks(0, 1, 0, 8, 0, 0)})
	a.bad(keyCopyAborted, ascUnreachable, copyCDB(list), list)

	readOnly := sameHost
	readOnly.ReadOnly = true
	a, b = coupled(t, readOnly)
	list = copyList(0, [][]byte{cscd(a.lu.naa(), 512), cscd(b.lu.naa(), 4096)}, [][]byte{blocks(0, 0, 1, 8, 0, 0)})
	a.bad(keyDataProtect, ascWriteProtected, copyCDB(list), list)

	a, b = coupled(t, sameHost)
	other := b.on(b.attach("iqn.test:other,i,0x1"))
	other.register(1)
	other.mustOut(prReserve, exclusiveAccess, 1, 0)
	list = copyList(0, [][]byte{cscd(a.lu.naa(), 512), cscd(b.lu.naa(), 4096)}, [][]byte{blocks(0, 1, 0, 8, 0, 0)})
	if r := a.run(copyCDB(list), list, 0); r.Status != ReservationConflict {
		t.Errorf("from a unit that another has reserved: status %02x", r.Status)
	}
}

func TestCopyParametersSayWhatTheLimitsAre(t *testing.T) {
	r := newRig(t, Options{})
	b := r.in([]byte{opCopyResults, saCopyParameters, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, 256)
	if len(b) != 47 || binary.BigEndian.Uint32(b) != 43 || binary.BigEndian.Uint16(b[8:]) != maxCopyTargets || binary.BigEndian.Uint32(b[16:]) != maxCopySegment {
		t.Errorf("% x", b)
	}
}

func FuzzCopyList(f *testing.F) {
	r := newRig(f, Options{})
	f.Add(copyList(1, [][]byte{cscd(r.lu.naa(), 512)}, [][]byte{blocks(0, 0, 0, 8, 0, 100)}))
	f.Fuzz(func(t *testing.T, list []byte) {
		if len(list) > copyHeader+maxCopyList {
			return
		}
		here := *r
		here.t = t
		here.run(copyCDB(list), list, 0)
	})
}
