package store

import (
	"errors"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

// givingUp is how the only replica that is left is mended.
func givingUp() *Mending { return &Mending{Member: nobody, Lose: true, Version: 1} }

func wantLost(t *testing.T, err error, block uint32) {
	t.Helper()
	var lost ErrLost
	if !errors.As(err, &lost) || lost.Block != block {
		t.Fatalf("error %v, want block %d to be lost", err, block)
	}
}

func codeOf(t *testing.T, s *Store, block uint32) uint32 {
	t.Helper()
	var code [1]uint32
	must(t, s.Table(idA, access, block*bs, bs, code[:], false))
	return code[0]
}

// withLost is a store with a chunk of which block 3 is lost.
func withLost(t *testing.T) (*Store, *disk.Mem) {
	s, m, _ := troubled(t, idA)
	must(t, write(s, idA, access, 0, pattern(1, 16*bs)))
	must(t, s.Flush(7, 1))
	flip(t, m, s.layerName(idA, 1), dataAt(3))
	v, err := s.Verify(idA, atOnce, givingUp())
	must(t, err)
	if v.Bad != 1 || v.Lost != 1 || v.Mended != 1 {
		t.Fatalf("%+v", v)
	}
	return s, m
}

func TestOnlyTheBadBlockIsLost(t *testing.T) {
	s, m := withLost(t)
	for range 2 {
		for block := range uint32(16) {
			if lost := codeOf(t, s, block) == chunk.Lost; lost != (block == 3) {
				t.Errorf("block %d lost: %t", block, lost)
			}
		}
		wantBytes(t, s, idA, access, 4*bs, pattern(1, 16*bs)[4*bs:])
		if v := verified(t, s, idA); v.Bad != 0 || v.Blocks != 15 || inventory(s)[idA].Damaged {
			t.Errorf("%+v, %+v", v, inventory(s)[idA])
		}
		must(t, s.Settle(7, 1, []ChunkVersion{{0, 1}}))
		must(t, s.Close())
		m.Restart(true)
		s = opened(t, m, "cs", Options{})
	}
	must(t, s.Close())
	sum, err := Check(m, "cs", func(Problem) {})
	if err != nil || sum.Lost != 1 || sum.Damaged != 0 {
		t.Errorf("%+v, %v", sum, err)
	}
}

// Part of a lost block cannot be written or zeroed, since the rest is not known; all of it can.
func TestLostBlockIsGoodAgainWhenAllOfItIsWritten(t *testing.T) {
	for name, end := range map[string]func(s *Store) error{
		"written": func(s *Store) error { return write(s, idA, access, 3*bs, pattern(4, bs)) },
		"zeroed":  func(s *Store) error { return s.Zero(idA, access, 3*bs, bs, false) },
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := withLost(t)
			wantLost(t, write(s, idA, access, 3*bs+512, pattern(2, 512)), 3)
			wantLost(t, write(s, idA, access, 2*bs, pattern(2, bs+512)), 3)
			wantLost(t, s.Zero(idA, access, 3*bs, 512, false), 3)
			wantLost(t, s.Zero(idA, access, 2*bs+512, bs, false), 3)
			if codeOf(t, s, 3) != chunk.Lost {
				t.Errorf("the code is %d", codeOf(t, s, 3))
			}
			must(t, end(s))
			must(t, write(s, idA, access, 3*bs+512, pattern(5, 512)))
			if data, err := readAll(s, idA, access, 3*bs, bs); err != nil || string(data[512:1024]) != string(pattern(5, 512)) {
				t.Errorf("after that, reading fails: %v", err)
			}
			must(t, s.Close())
		})
	}
}

// What was written or discarded meanwhile, what a former replica has, what nobody has answered for: none of it is given up.
func TestNoBlockIsLostThatNeedNotBe(t *testing.T) {
	for _, c := range []struct {
		name         string
		how          func(s *Store, good []byte) *Mending
		mended, lost uint64
	}{
		{"nothing is to be given up", func(*Store, []byte) *Mending { return &Mending{Member: nobody} }, 0, 0},
		{"not all have answered", func(*Store, []byte) *Mending {
			return &Mending{Member: nobody, Lose: true, Version: 1, Former: func(_, _, _ uint32) ([]byte, bool) { return nil, false }}
		}, 0, 0},
		{"a former replica has it", func(_ *Store, good []byte) *Mending {
			return &Mending{Member: nobody, Lose: true, Version: 1, Former: func(_, _, _ uint32) ([]byte, bool) { return good, true }}
		}, 1, 0},
		{"a former replica has other data", func(*Store, []byte) *Mending {
			return &Mending{Member: nobody, Version: 1, Former: func(_, _, _ uint32) ([]byte, bool) { return pattern(9, bs), true }}
		}, 0, 0},
		{"it is written meanwhile", func(s *Store, good []byte) *Mending {
			return &Mending{Lose: true, Version: 1, Member: func(_, block uint32) []byte { _ = write(s, idA, access, block*bs, good); return nil }}
		}, 1, 0},
		{"it is discarded meanwhile", func(s *Store, _ []byte) *Mending {
			return &Mending{Lose: true, Version: 1, Member: func(_, block uint32) []byte { _ = s.Zero(idA, access, block*bs, bs, false); return nil }}
		}, 1, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, m, _ := troubled(t, idA)
			data := pattern(1, 16*bs)
			must(t, write(s, idA, access, 0, data))
			flip(t, m, s.layerName(idA, 1), dataAt(3))
			v, err := s.Verify(idA, atOnce, c.how(s, data[3*bs:4*bs]))
			must(t, err)
			if v.Bad != 1 || v.Mended != c.mended || v.Lost != c.lost || codeOf(t, s, 3) == chunk.Lost {
				t.Errorf("%+v, code %x", v, codeOf(t, s, 3))
			}
			must(t, s.Close())
		})
	}
}

func TestNothingIsLostAtAnotherVersion(t *testing.T) {
	s, m, _ := troubled(t, idA)
	must(t, write(s, idA, access, 0, pattern(1, 16*bs)))
	flip(t, m, s.layerName(idA, 1), dataAt(3))
	must(t, s.Raise(7, 1, []ChunkVersion{{0, 2}}))
	_, err := s.Verify(idA, atOnce, givingUp())
	wantErr(t, err, errChanged)
	var code [1]uint32
	must(t, s.Table(idA, Access{Epoch: 1, Version: 2, Layer: 1}, 3*bs, bs, code[:], false))
	if code[0] == chunk.Lost {
		t.Error("it is lost")
	}
	must(t, s.Close())
}

// A former replica answers whatever it is; nobody else gets anything from it.
func TestFormerReplicasAnswerMenders(t *testing.T) {
	s, _, _ := troubled(t, idA)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	must(t, s.Demote([]chunk.ID{idA}))
	code := make([]uint32, 1)
	ask := Access{Version: 77, Layer: 1, Peer: true, Former: true}
	data, err := s.ReadLayer(idA, ask, 0, bs, code, nil)
	must(t, err)
	if !chunk.Verify(idA, 0, code[0], data) {
		t.Error("it does not answer with what it has")
	}
	_, err = s.ReadLayer(idA, Access{Version: 1, Layer: 1, Peer: true, Suspect: true}, 0, bs, code, nil)
	wantErr(t, err, ErrStaleReplica)
	ask.Peer, ask.Epoch = false, 1
	_, err = s.ReadLayer(idA, ask, 0, bs, code, nil)
	wantErr(t, err, ErrStaleReplica)
	must(t, s.Close())
}

// A rebuild copies lost blocks as lost; what was laid over them was refused by the source, and goes.
func TestLostBlocksArePulledAsLost(t *testing.T) {
	s, _, _ := troubled(t, idB)
	must(t, errors.Join(s.Prepare([]Preparation{rebuilt(idA, 2, 1)})...))
	at := Access{Epoch: 1, Version: 2, Layer: 1}
	must(t, write(s, idA, at, 512, pattern(3, 512)))       // its base is not there yet: it is kept
	must(t, write(s, idA, at, 2*bs, pattern(4, bs)))       // whole
	must(t, write(s, idA, at, 3*bs+512, pattern(5, 1024))) // and one whose base the pull finds equal
	codes := []uint32{chunk.Lost, chunk.Lost, chunk.Lost, chunk.Lost}
	_, err := s.Pull(idA, 2, 1, 0, 0, codes, nil)
	must(t, err)
	must(t, s.SyncReplica(idA, 2))
	must(t, s.Promote(idA, 2))
	got := make([]uint32, 4)
	must(t, s.Table(idA, at, 0, 4*bs, got, false))
	if got[0] != chunk.Lost || got[1] != chunk.Lost || !chunk.HasData(got[2]) || got[3] != chunk.Lost {
		t.Errorf("codes %x", got)
	}
	wantLost(t, write(s, idA, at, 512, pattern(3, 512)), 0)
	must(t, s.WriteAtomic(idA, at, 2*bs, []uint32{chunk.Lost}, nil))
	wantLost(t, write(s, idA, at, 2*bs, pattern(3, 512)), 2)
	must(t, s.Close())
}

func synced(t *testing.T, m *disk.Mem, name string) {
	t.Helper()
	f, err := m.Open(name)
	must(t, err)
	must(t, errors.Join(f.Sync(), f.Close()))
}

// Cut off anywhere, giving up leaves the block as bad as it was, or lost, and nothing else changed.
func TestGivingUpCutOffAtAnyStepMakesNothingWorse(t *testing.T) {
	for _, power := range []bool{false, true} {
		for step, done := 1, false; !done; step++ {
			s, m, _ := troubled(t, idA)
			must(t, write(s, idA, access, 0, pattern(1, 16*bs)))
			must(t, s.Settle(7, 1, []ChunkVersion{{0, 1}}))
			flip(t, m, s.layerName(idA, 1), dataAt(3))
			synced(t, m, s.layerName(idA, 1))
			m.Dies(step)
			_, err := s.Verify(idA, atOnce, givingUp())
			done = err == nil
			_ = s.Close()
			m.Restart(power)
			again := opened(t, m, "cs", Options{})
			v, err := again.Verify(idA, atOnce, givingUp())
			must(t, err)
			if v.Bad > 1 || v.Mended != v.Bad || done && v.Bad > 0 {
				t.Fatalf("power %t, cut off in step %d: %+v", power, step, v)
			}
			if codeOf(t, again, 3) != chunk.Lost {
				t.Fatalf("power %t, cut off in step %d: code %x", power, step, codeOf(t, again, 3))
			}
			wantBytes(t, again, idA, access, 4*bs, pattern(1, 16*bs)[4*bs:])
			must(t, again.Close())
		}
	}
}

// Files of the time before blocks could be lost may have the sum 2: it stands for the same data as ever.
func TestOldSumIsNotTakenForALoss(t *testing.T) {
	s, m, _ := troubled(t, idA)
	must(t, write(s, idA, access, 0, pattern(1, 16*bs)))
	must(t, s.Settle(7, 1, []ChunkVersion{{0, 1}}))
	must(t, s.Close())
	f, err := m.Open("cs/" + layerName(idA, 1))
	must(t, err)
	_, err = f.WriteAt([]byte{2, 0, 0, 0}, chunk.CodeOffset(3))
	must(t, errors.Join(err, f.Sync(), f.Close()))
	s = opened(t, m, "cs", Options{})
	if code := codeOf(t, s, 3); code != chunk.LeastSum {
		t.Errorf("the code is %d", code)
	}
	_, err = readAll(s, idA, access, 3*bs, bs)
	wantErr(t, err, ErrCorrupt{Block: 3}) // these data are not those of the sum
	v, err := s.Verify(idA, atOnce, givingUp())
	must(t, err)
	if v.Lost != 1 || v.Bad != 1 { // the table on the disk was made what it is in memory
		t.Errorf("%+v", v)
	}
	must(t, s.Close())
}

// What the journal has of a block from before it was lost does not come back.
func TestAReplayKeepsWhatIsLost(t *testing.T) {
	s, m := journaledStore(t, 4<<20, Options{}, idA)
	must(t, write(s, idA, access, 0, pattern(1, 16*bs)))
	must(t, s.Flush(7, 1))
	flip(t, m, s.layerName(idA, 1), dataAt(3))
	v, err := s.Verify(idA, atOnce, givingUp())
	must(t, err)
	if v.Lost != 1 {
		t.Fatalf("%+v", v)
	}
	again := cut(t, m, s, 2)
	var code [1]uint32
	must(t, again.Table(idA, Access{Epoch: 1, Version: 2, Layer: 1}, 3*bs, bs, code[:], false))
	if code[0] != chunk.Lost {
		t.Errorf("the code is %x", code[0])
	}
}
