package store

import (
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

// twoReplicas are two stores that hold the same chunk.
func twoReplicas(t *testing.T) (stores [2]*Store, disks [2]*disk.Mem, reported [2]*troubles) {
	for i := range stores {
		s, m, tr := troubled(t, idA)
		must(t, write(s, idA, access, 0, pattern(1, 16*bs)))
		must(t, write(s, idA, Access{Epoch: 1, Version: 1, Layer: 4}, 8*bs, pattern(2, 16*bs)))
		must(t, s.Flush(7, 1))
		stores[i], disks[i], reported[i] = s, m, tr
	}
	return stores, disks, reported
}

// from asks a store as a chunk server asks another: a block that does not verify is none.
func from(s *Store) Other {
	return func(layer, block uint32) []byte {
		codes := make([]uint32, 1)
		data, err := s.ReadLayer(idA, Access{Version: 1, Layer: layer, Peer: true}, block*bs, bs, codes, nil)
		if err != nil || !chunk.HasData(codes[0]) || !chunk.Verify(idA, block, codes[0], data) {
			return nil
		}
		return data
	}
}

func wantWhole(t *testing.T, s *Store) {
	t.Helper()
	wantBytes(t, s, idA, Access{Epoch: 1, Version: 1, Layer: 4}, 0, append(pattern(1, 16*bs)[:8*bs:8*bs], pattern(2, 16*bs)...))
	if v := verified(t, s, idA); v.Bad != 0 {
		t.Errorf("after mending: %+v", v)
	}
}

func TestReplicasBadInDifferentPlacesBecomeWhole(t *testing.T) {
	s, m, _ := twoReplicas(t)
	flip(t, m[0], s[0].layerName(idA, 1), dataAt(3)+9)
	flip(t, m[0], s[0].layerName(idA, 4), dataAt(12))
	flip(t, m[1], s[1].layerName(idA, 1), dataAt(4)+4000)
	for i := range s {
		v, err := s[i].Verify(idA, atOnce, &Mending{Member: from(s[1-i])})
		must(t, err)
		if want := uint64(2 - i); v.Bad != want || v.Mended != want {
			t.Errorf("replica %d: %+v", i, v)
		}
		wantWhole(t, s[i])
	}
	for i := range s {
		must(t, s[i].Close())
		m[i].Restart(true)
		again := opened(t, m[i], "cs", Options{OnTrouble: func(id chunk.ID, what string, _ bool) { t.Errorf("%s: %s", id, what) }})
		wantWhole(t, again)
		must(t, again.Close())
	}
}

func TestBlockThatIsBadEverywhereStaysRefused(t *testing.T) {
	s, m, _ := twoReplicas(t)
	for i := range s {
		flip(t, m[i], s[i].layerName(idA, 1), dataAt(3)+int64(i))
	}
	flip(t, m[0], s[0].layerName(idA, 1), dataAt(5))
	v, err := s[0].Verify(idA, atOnce, &Mending{Member: from(s[1])})
	must(t, err)
	if v.Bad != 2 || v.Mended != 1 {
		t.Errorf("%+v", v)
	}
	_, err = readAll(s[0], idA, access, 3*bs, bs)
	wantErr(t, err, ErrCorrupt{Block: 3})
	wantBytes(t, s[0], idA, access, 4*bs, pattern(1, 16*bs)[4*bs:])
}

// Data are never changed to what another replica has unless they are what this one had.
func TestMendingNeverBringsInOtherData(t *testing.T) {
	s, m, _ := twoReplicas(t)
	must(t, write(s[1], idA, Access{Epoch: 1, Version: 1, Layer: 4}, 8*bs, pattern(3, bs))) // in flight: it has not come here
	flip(t, m[0], s[0].layerName(idA, 4), dataAt(8))
	v, err := s[0].Verify(idA, atOnce, &Mending{Member: from(s[1])})
	must(t, err)
	if v.Bad != 1 || v.Mended != 0 {
		t.Errorf("%+v", v)
	}
	_, err = readAll(s[0], idA, Access{Epoch: 1, Version: 1, Layer: 4}, 8*bs, bs)
	wantErr(t, err, ErrCorrupt{Block: 8})
}

func TestTablesAreMended(t *testing.T) {
	s, m, tr := twoReplicas(t)
	name := s[0].layerName(idA, 1)
	flip(t, m[0], name, chunk.CodeOffset(2)) // what is in memory is good
	if v := verified(t, s[0], idA); v.Bad != 1 {
		t.Errorf("the table on the disk is not the one in memory: %+v", v)
	}
	v, err := s[0].Verify(idA, atOnce, &Mending{Member: from(s[1])})
	must(t, err)
	if v.Bad != 1 || v.Mended != 1 {
		t.Errorf("%+v", v)
	}
	wantWhole(t, s[0])
	flip(t, m[0], name, chunk.CodeOffset(2))
	must(t, s[0].Settle(7, 1, []ChunkVersion{{0, 1}}))
	must(t, s[0].Close())
	m[0].Restart(false)
	s[0] = opened(t, m[0], "cs", Options{OnTrouble: tr[0].add}) // now it is bad in memory too
	v, err = s[0].Verify(idA, atOnce, &Mending{Member: from(s[1])})
	must(t, err)
	if v.Bad != 1 || v.Mended != 1 {
		t.Errorf("a code that the data here and there contradict: %+v", v)
	}
	wantWhole(t, s[0])
	must(t, s[0].Close())
}

func TestMendingThatFailsLeavesTheRestServed(t *testing.T) {
	s, m, _ := twoReplicas(t)
	flip(t, m[0], s[0].layerName(idA, 1), dataAt(3))
	failing(m[0], disk.OpWrite, "00000000.", disk.ErrIO)
	v, err := s[0].Verify(idA, atOnce, &Mending{Member: from(s[1])})
	must(t, err)
	if v.Bad != 1 || v.Mended != 0 {
		t.Errorf("%+v", v)
	}
	m[0].Fails(nil)
	wantBytes(t, s[0], idA, access, 4*bs, pattern(1, 16*bs)[4*bs:])
}

// Cut off anywhere, mending leaves each block as bad as it was, or good.
func TestMendingCutOffAtAnyStepMakesNothingWorse(t *testing.T) {
	for _, power := range []bool{false, true} {
		for step, done := 1, false; !done; step++ {
			s, m, _ := twoReplicas(t)
			must(t, s[0].Settle(7, 1, []ChunkVersion{{0, 1}}))
			flip(t, m[0], s[0].layerName(idA, 1), dataAt(3))
			flip(t, m[0], s[0].layerName(idA, 4), dataAt(12))
			m[0].Dies(step)
			_, err := s[0].Verify(idA, atOnce, &Mending{Member: from(s[1])})
			done = err == nil
			_ = s[0].Close()
			m[0].Restart(power)
			again := opened(t, m[0], "cs", Options{})
			v, err := again.Verify(idA, atOnce, &Mending{Member: from(s[1])})
			must(t, err)
			if v.Bad > 2 || v.Mended != v.Bad {
				t.Fatalf("power %t, cut off in step %d: %+v", power, step, v)
			}
			wantWhole(t, again)
			must(t, again.Close())
		}
	}
}

// A bad block that is written as a whole is good again, and so is the replica: it is not marked for ever.
func TestReplicaIsGoodAgainWhenWhatWasBadWasWrittenAnew(t *testing.T) {
	s, m, tr := troubled(t, idA)
	must(t, write(s, idA, access, 0, pattern(1, 2*bs)))
	flip(t, m, s.layerName(idA, 1), dataAt(1))
	if v := verified(t, s, idA); v.Bad != 1 {
		t.Fatalf("%+v", v)
	}
	must(t, write(s, idA, access, bs, pattern(2, bs)))
	v, err := s.Verify(idA, atOnce, &Mending{Member: nobody})
	must(t, err)
	if v.Bad != 0 || inventory(s)[idA].Damaged {
		t.Errorf("%+v, %+v", v, inventory(s)[idA])
	}
	must(t, s.Close())
	again := opened(t, m, "cs", Options{OnTrouble: tr.add})
	must(t, again.Close())
	if tr.count() != 1 {
		t.Errorf("reported %q", tr.seen)
	}
}

// nobody has a block.
func nobody(uint32, uint32) []byte { return nil }
