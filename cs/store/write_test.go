package store

import (
	"errors"
	"testing"

	"pstorage/cs/chunk"
)

func TestWrittenBytesAreRead(t *testing.T) { bothWays(t, testWrittenBytesAreRead) }

func testWrittenBytesAreRead(t *testing.T) {
	s, _ := memStore(t, idA)
	data := pattern(1, 5*bs)
	must(t, write(s, idA, access, 3*bs, data))
	wantBytes(t, s, idA, access, 3*bs, data)
	wantBytes(t, s, idA, access, 0, make([]byte, 3*bs))
}

func TestPartsOfBlocksAreMerged(t *testing.T) { bothWays(t, testPartsOfBlocksAreMerged) }

func testPartsOfBlocksAreMerged(t *testing.T) {
	s, _ := memStore(t, idA)
	want := make([]byte, 4*bs)
	for i, w := range []struct{ off, n uint32 }{{100, 50}, {bs - 512, 1024}, {bs + 512, 2 * bs}, {0, 1}, {4*bs - 1, 1}} {
		data := pattern(uint64(i), int(w.n+8))[:w.n]
		copy(want[w.off:], data)
		must(t, write(s, idA, access, w.off, data))
		wantBytes(t, s, idA, access, 0, want)
	}
}

func TestZeroedBytesReadAsZerosAndGiveTheirSpaceBack(t *testing.T) {
	bothWays(t, testZeroedBytesReadAsZerosAndGiveTheirSpaceBack)
}

func testZeroedBytesReadAsZerosAndGiveTheirSpaceBack(t *testing.T) {
	s, m := memStore(t, idA)
	want := pattern(1, 16*bs)
	must(t, write(s, idA, access, 0, want))
	before, err := m.Allocated(s.layerName(idA, 1))
	must(t, err)
	must(t, s.Zero(idA, access, 512, 9*bs, false))
	clear(want[512 : 512+9*bs])
	wantBytes(t, s, idA, access, 0, want)
	after, err := m.Allocated(s.layerName(idA, 1))
	must(t, err)
	if before-after != 8*bs {
		t.Fatalf("%d bytes given back, want %d", before-after, 8*bs)
	}
	must(t, write(s, idA, access, 3*bs, want[12*bs:13*bs]))
	wantBytes(t, s, idA, access, 3*bs, want[12*bs:13*bs])
}

func TestZeroingWhatIsNotThereTakesNoDataSpace(t *testing.T) {
	bothWays(t, testZeroingWhatIsNotThereTakesNoDataSpace)
}

func testZeroingWhatIsNotThereTakesNoDataSpace(t *testing.T) {
	s, m := memStore(t, idA)
	must(t, s.Zero(idA, access, 100, 5*bs, false))
	got, err := m.Allocated(s.layerName(idA, 1))
	must(t, err)
	if got != 2*bs { // header and a page of the table
		t.Fatalf("the file takes %d bytes", got)
	}
}

func TestUpperLayerHidesTheOneBelow(t *testing.T) { bothWays(t, testUpperLayerHidesTheOneBelow) }

func testUpperLayerHidesTheOneBelow(t *testing.T) {
	s, _ := memStore(t, idA)
	low := pattern(1, 4*bs)
	must(t, write(s, idA, access, 0, low))
	up := access
	up.Layer = 3
	want := append([]byte(nil), low...)
	part := pattern(2, 512)
	copy(want[bs+512:], part)
	clear(want[2*bs : 3*bs])
	must(t, write(s, idA, up, bs+512, part))
	must(t, s.Zero(idA, up, 2*bs, bs, false))
	wantBytes(t, s, idA, up, 0, want)
	wantBytes(t, s, idA, access, 0, low)

	codes := make([]uint32, 4)
	must(t, s.Table(idA, up, 0, 4*bs, codes, true))
	if codes[0] != chunk.Absent || !chunk.HasData(codes[1]) || codes[2] != chunk.Zeros || codes[3] != chunk.Absent {
		t.Fatalf("the upper layer alone has codes %x", codes)
	}
	packed, err := s.ReadLayer(idA, up, 0, 4*bs, codes, nil)
	must(t, err)
	if len(packed) != bs {
		t.Fatalf("%d bytes of data in the upper layer alone", len(packed))
	}
	wantErr(t, write(s, idA, access, 0, part), ErrInvalid) // the lower one is frozen
}

func TestAtomicWriteStoresBlocksWithTheirCodes(t *testing.T) {
	bothWays(t, testAtomicWriteStoresBlocksWithTheirCodes)
}

func testAtomicWriteStoresBlocksWithTheirCodes(t *testing.T) {
	s, _ := memStore(t, idA)
	must(t, write(s, idA, access, 0, pattern(1, 4*bs)))
	data := pattern(2, 2*bs)
	codes := []uint32{chunk.Absent, chunk.BlockSum(idA, 1, data[:bs]), chunk.Zeros, chunk.BlockSum(idA, 3, data[bs:])}
	must(t, s.WriteAtomic(idA, access, 0, codes, data))
	got := make([]uint32, 4)
	must(t, s.Table(idA, access, 0, 4*bs, got, false))
	if [4]uint32(got) != [4]uint32(codes) {
		t.Fatalf("codes %x, want %x", got, codes)
	}
	want := make([]byte, 4*bs)
	copy(want[bs:], data[:bs])
	copy(want[3*bs:], data[bs:])
	wantBytes(t, s, idA, access, 0, want)
}

func TestDamagedOrMalformedWritesAreRefused(t *testing.T) {
	bothWays(t, testDamagedOrMalformedWritesAreRefused)
}

func testDamagedOrMalformedWritesAreRefused(t *testing.T) {
	s, _ := memStore(t, idA)
	data := pattern(1, 2*bs)
	sums := sumsOf(idA, 0, data)
	wantErr(t, s.Write(idA, access, 0, data, []uint32{sums[0], sums[1] + 1}, false), ErrBadSum)
	wantErr(t, s.Write(idA, access, bs, data, sums, false), ErrBadSum) // misdirected
	wantErr(t, s.Write(idA, access, 0, data, sums[:1], false), ErrInvalid)
	wantErr(t, s.Write(idA, access, 0, nil, nil, false), ErrInvalid)
	end := uint32(testBlocks * bs)
	wantErr(t, write(s, idA, access, end-bs, data), ErrInvalid)
	wantErr(t, write(s, idA, access, ^uint32(0)-bs+1, data[:bs]), ErrInvalid)
	wantErr(t, s.Zero(idA, access, end, bs, false), ErrInvalid)
	wantErr(t, s.Zero(idA, access, bs, ^uint32(0), false), ErrInvalid)
	wantErr(t, s.Zero(idA, access, 0, 0, false), ErrInvalid)
	wantErr(t, s.WriteAtomic(idA, access, 1, sums, data), ErrInvalid)
	wantErr(t, s.WriteAtomic(idA, access, 0, sums, data[:bs]), ErrInvalid)
	wantErr(t, s.WriteAtomic(idA, access, 0, sums[:1], data), ErrInvalid)
	wantErr(t, s.WriteAtomic(idA, access, 0, []uint32{sums[1]}, data[bs:]), ErrBadSum)
	none := access
	none.Layer = 0
	wantErr(t, write(s, idA, none, 0, data), ErrInvalid)
	_, err := s.Read(idA, access, 512, bs, make([]uint32, 2), nil, false)
	wantErr(t, err, ErrInvalid)
	_, err = s.Read(idA, access, end, bs, make([]uint32, 2), nil, false)
	wantErr(t, err, ErrInvalid)
	_, err = s.Read(idA, access, 0, 2*bs, make([]uint32, 1), nil, false)
	wantErr(t, err, ErrInvalid)
	wantBytes(t, s, idA, access, 0, make([]byte, end))
}

func TestOnlyTheRightEpochAndVersionAreAdmitted(t *testing.T) {
	bothWays(t, testOnlyTheRightEpochAndVersionAreAdmitted)
}

func testOnlyTheRightEpochAndVersionAreAdmitted(t *testing.T) {
	s, _ := memStore(t, idA)
	must(t, s.Raise(7, 1, []ChunkVersion{{0, 5}}))
	_, err := s.Fence(7, 3)
	must(t, err)
	good := Access{Epoch: 3, Version: 5, Layer: 1}
	data := pattern(1, bs)
	must(t, write(s, idA, good, 0, data))
	for name, a := range map[string]Access{"old epoch": {Epoch: 2, Version: 5, Layer: 1, Peer: false}, "new epoch": {Epoch: 4, Version: 5, Layer: 1, Peer: false}, "no epoch": {Epoch: 0, Version: 5, Layer: 1, Peer: false}} {
		var stale ErrStaleEpoch
		if err := write(s, idA, a, 0, data); !errors.As(err, &stale) || stale.Have != 3 {
			t.Errorf("write with %s: %v", name, err)
		}
		if _, err := readAll(s, idA, a, 0, bs); !errors.As(err, &stale) {
			t.Errorf("read with %s: %v", name, err)
		}
	}
	for name, a := range map[string]Access{"old version": {Epoch: 3, Version: 4, Layer: 1, Peer: false}, "new version": {Epoch: 3, Version: 6, Layer: 1, Peer: false}, "peer's old version": {Epoch: 0, Version: 4, Layer: 1, Peer: true}} {
		var stale ErrStaleVersion
		if err := write(s, idA, a, 0, data); !errors.As(err, &stale) || stale.Have != 5 {
			t.Errorf("write with %s: %v", name, err)
		}
		if _, err := readAll(s, idA, a, 0, bs); !errors.As(err, &stale) {
			t.Errorf("read with %s: %v", name, err)
		}
	}
	wantBytes(t, s, idA, Access{Version: 5, Layer: 1, Peer: true}, 0, data)
	wantErr(t, write(s, idB, good, 0, data), ErrNoChunk)
	wantErr(t, s.Flush(7, 2), ErrStaleEpoch{Have: 3})
	wantErr(t, s.Settle(7, 2, nil), ErrStaleEpoch{Have: 3})
	wantErr(t, s.Raise(7, 2, nil), ErrStaleEpoch{Have: 3})
	_, err = s.Fence(7, 2)
	wantErr(t, err, ErrStaleEpoch{Have: 3})
	wantErr(t, s.Raise(7, 3, []ChunkVersion{{0, 4}}), ErrStaleVersion{Have: 5})
}
