package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

func atOnce(int) error { return nil }

func verified(t *testing.T, s *Store, id chunk.ID) Verified {
	t.Helper()
	v, err := s.Verify(id, atOnce, nil)
	must(t, err)
	return v
}

// flip turns a bit of a file over behind the store's back.
func flip(t *testing.T, fsys disk.FS, name string, off int64) {
	t.Helper()
	f, err := fsys.Open(name)
	must(t, err)
	p := make([]byte, 1)
	_, err = f.ReadAt(p, off)
	must(t, err)
	p[0] ^= 1 << (off % 8)
	_, err = f.WriteAt(p, off)
	must(t, errors.Join(err, f.Close()))
}

func dataAt(block uint32) int64 { return chunk.DataOffset(testBlocks, block) }

func TestVerificationFindsEveryBlockThatRots(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 40 {
		s, m, tr := troubled(t, idA, idB)
		must(t, write(s, idA, access, 0, pattern(1, 40*bs)))
		must(t, write(s, idA, Access{Epoch: 1, Version: 1, Layer: 4}, 16*bs, pattern(2, 8*bs)))
		must(t, write(s, idB, access, 0, pattern(3, 8*bs)))
		if v := verified(t, s, idA); v.Blocks != 48 || v.Bad != 0 || v.Bytes < 48*bs {
			t.Fatalf("a sound replica: %+v", v)
		}
		layer, block := uint32(1), rnd.Uint32N(40)
		if rnd.IntN(2) == 0 {
			layer, block = 4, 16+rnd.Uint32N(8)
		}
		flip(t, m, s.layerName(idA, layer), dataAt(block)+rnd.Int64N(bs))
		if v := verified(t, s, idA); v.Blocks != 47 || v.Bad != 1 {
			t.Fatalf("layer %d, block %d is bad: %+v", layer, block, v)
		}
		if v := verified(t, s, idB); v.Bad != 0 {
			t.Fatalf("another replica: %+v", v)
		}
		must(t, s.Close())
		want := fmt.Sprintf("corrupt: layer %d, block %d does not match its sum", layer, block)
		if tr.count() != 1 || tr.ids[0] != idA || tr.seen[0] != want {
			t.Fatalf("reported %v %q, want %q", tr.ids, tr.seen, want)
		}
	}
}

func TestFilesThatCannotBeUsedAreFound(t *testing.T) {
	for name, damage := range map[string]func(m *disk.Mem, name string) error{
		"missing": func(m *disk.Mem, name string) error { return m.Remove(name) },
		"cut off": func(m *disk.Mem, name string) error { return resize(m, name, chunk.FileSize(testBlocks)-bs) },
		"longer":  func(m *disk.Mem, name string) error { return resize(m, name, chunk.FileSize(testBlocks)+1) },
		"header":  func(m *disk.Mem, name string) error { flip(t, m, name, 17); return nil },
	} {
		t.Run(name, func(t *testing.T) {
			s, m, tr := troubled(t, idA)
			must(t, write(s, idA, access, 0, pattern(1, 8*bs))) // the store has the file open
			must(t, damage(m, s.layerName(idA, 1)))
			if v := verified(t, s, idA); v.Bad != 1 {
				t.Errorf("%+v", v)
			}
			must(t, s.Close())
			if tr.count() != 1 {
				t.Errorf("reported %q", tr.seen)
			}
		})
	}
}

func resize(m *disk.Mem, name string, size int64) error {
	f, err := m.Open(name)
	if err != nil {
		return err
	}
	if size > chunk.FileSize(testBlocks) {
		_, err = f.WriteAt([]byte{1}, size-1)
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Truncate(size), f.Close())
}

func TestUnreadableSectorsAreFoundAndTheRestServed(t *testing.T) {
	s, m, tr := troubled(t, idA)
	must(t, write(s, idA, access, 0, pattern(1, 40*bs)))
	m.Fails(func(st disk.Step) error {
		if st.Op == disk.OpRead && st.Off <= dataAt(7) && dataAt(7) < st.Off+st.Length {
			return disk.ErrIO
		}
		return nil
	})
	if v := verified(t, s, idA); v.Bad != 1 || v.Blocks != 39 {
		t.Errorf("%+v", v)
	}
	wantBytes(t, s, idA, access, 0, pattern(1, 7*bs))
	m.Fails(nil)
	must(t, s.Close())
	if tr.count() != 1 || strings.HasPrefix(tr.seen[0], "corrupt") {
		t.Errorf("reported %q", tr.seen)
	}
}

// Writers go on; what they are in the middle of is not taken for damage.
func TestVerificationNeverBlamesAWriter(t *testing.T) {
	s, _, tr := troubled(t, idA)
	must(t, write(s, idA, access, 0, pattern(1, 32*bs)))
	quit := make(chan struct{})
	var writers sync.WaitGroup
	for w := range uint32(4) {
		writers.Go(func() {
			for i := uint64(0); ; i++ {
				select {
				case <-quit:
					return
				default:
				}
				block := w*8 + uint32(i)%8
				if i%5 == 0 {
					must(t, s.Zero(idA, access, block*bs, bs, false))
				} else {
					must(t, write(s, idA, access, block*bs, pattern(i, bs)))
				}
			}
		})
	}
	for range 200 {
		if v := verified(t, s, idA); v.Bad != 0 {
			t.Fatalf("%+v", v)
		}
	}
	close(quit)
	writers.Wait()
	must(t, s.Close())
	if tr.count() != 0 {
		t.Errorf("reported %q", tr.seen)
	}
}

func TestVerificationHoldsNoLockWhileItWaits(t *testing.T) {
	s, _ := memStore(t, idA)
	must(t, write(s, idA, access, 0, pattern(1, 64*bs)))
	waits := 0
	_, err := s.Verify(idA, func(int) error {
		waits++
		r := s.lookup(idA)
		if !r.mu.TryLock() {
			t.Error("the replica is locked")
			return nil
		}
		r.mu.Unlock()
		if !r.ctl.TryLock() {
			t.Error("the replica's changes are locked")
			return nil
		}
		r.ctl.Unlock()
		return nil
	}, nil)
	must(t, err)
	if waits != 3 { // the table, and twice 32 blocks
		t.Errorf("asked %d times", waits)
	}
}

func TestOnlySoundReplicasInSyncAreVerified(t *testing.T) {
	s, m := memStore(t, idA, idB)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	must(t, s.Demote([]chunk.ID{idB}))
	_, err := s.Verify(idB, atOnce, nil)
	wantErr(t, err, ErrStaleReplica)
	_, err = s.Verify(chunk.ID{File: 1}, atOnce, nil)
	wantErr(t, err, ErrNoChunk)
	full := errors.New("enough")
	_, err = s.Verify(idA, func(int) error { return full }, nil)
	wantErr(t, err, full)
	if d := s.Dates()[7]; d != (Dates{Never: 1}) {
		t.Errorf("a verification that was given up counts: %+v", d)
	}
	m.Restart(false)
	s = opened(t, m, "cs", Options{})
	defer s.Close()
	_, err = s.Verify(idA, atOnce, nil)
	wantErr(t, err, ErrSuspect)
	if due := s.Due(5); len(due) != 0 {
		t.Errorf("due: %v", due)
	}
}

func TestReplicaRemovedMeanwhileIsNotBlamed(t *testing.T) {
	for _, step := range []int{1, 2, 3} {
		s, _, tr := troubled(t, idA)
		must(t, write(s, idA, access, 0, pattern(1, 64*bs)))
		n := 0
		_, err := s.Verify(idA, func(int) error {
			if n++; n != step {
				return nil
			}
			must(t, s.Remove([]chunk.ID{idA}))
			if step == 2 { // and another is made in its place
				prepared(t, s, idA)
				must(t, write(s, idA, access, 0, pattern(2, 64*bs)))
			}
			return nil
		}, nil)
		if step < 3 && err == nil {
			t.Error("the verification of a replica that was removed has ended well")
		}
		must(t, s.Close())
		if tr.count() != 0 {
			t.Errorf("reported %q", tr.seen)
		}
	}
}

func TestOldestAndNewReplicasTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ids []chunk.ID
		for i := range uint32(6) {
			ids = append(ids, chunk.ID{File: 7, Index: i})
		}
		s, m := memStore(t, ids...)
		begun := time.Now().Unix()
		for i, k := range []int{3, 1, 4} {
			time.Sleep(time.Second)
			verified(t, s, ids[k])
			if i == 0 && s.Dates()[7] != (Dates{Oldest: begun + 1, Never: 5}) {
				t.Errorf("dates: %+v", s.Dates())
			}
		}
		must(t, s.Close())
		m.Restart(true)
		s = opened(t, m, "cs", Options{})
		defer s.Close()
		var old []chunk.ID
		due := s.Due(6)
		for _, id := range due {
			if id == ids[3] || id == ids[1] || id == ids[4] {
				old = append(old, id)
			}
		}
		if len(due) != 6 || !slices.Equal(old, []chunk.ID{ids[3], ids[1], ids[4]}) {
			t.Errorf("due: %v", due)
		}
		if first := slices.Index(due, ids[3]); first > 1 {
			t.Errorf("the oldest has place %d: %v", first, due)
		}
		if one := s.Due(1); len(one) != 1 {
			t.Errorf("one is due: %v", one)
		}
		must(t, s.Demote([]chunk.ID{ids[3]}))
		must(t, errors.Join(s.Prepare([]Preparation{rebuilt(ids[3], 3, 1)})...))
		must(t, s.SyncReplica(ids[3], 3))
		must(t, s.Promote(ids[3], 3))
		if d := s.Dates()[7]; d.Never != 4 {
			t.Errorf("a rebuilt replica keeps the date of what it was: %+v", d)
		}
	})
}

func TestAReplicaIsRaisedWhileItIsVerified(t *testing.T) {
	s, _, tr := troubled(t, idA)
	must(t, write(s, idA, access, 0, pattern(1, 40*bs)))
	raised := make(chan error, 1)
	first := true
	v, err := s.Verify(idA, func(int) error {
		if first {
			first = false
			go func() { raised <- s.Raise(idA.File, 1, []ChunkVersion{{idA.Index, 2}}) }()
		}
		return nil
	}, nil)
	must(t, errors.Join(err, <-raised))
	if v.Blocks != 40 || v.Bad != 0 || tr.count() != 0 {
		t.Errorf("%+v, reported %v", v, tr.ids)
	}
	if v := verified(t, s, idA); v.Blocks != 40 || v.Bad != 0 {
		t.Errorf("afterwards: %+v", v)
	}
	must(t, s.Close())
}
