package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

// Writers, each on blocks of its own, share chunks with flushes, settles, raises and fences, in a cache that
// is too small for them.
func TestParallelWritersReadWhatTheyWrote(t *testing.T) {
	bothWays(t, testParallelWritersReadWhatTheyWrote)
}

func testParallelWritersReadWhatTheyWrote(t *testing.T) {
	for name, fsys := range map[string]disk.FS{"memory": disk.NewMem(1), "os": disk.OS{}} {
		t.Run(name, func(t *testing.T) {
			dir := "cs"
			if name == "os" {
				dir = t.TempDir() + "/cs"
			}
			created(t, fsys, dir)
			s := opened(t, fsys, dir, Options{Reserve: -1})
			s.cache.maxFiles, s.cache.maxTables = 3, 3*testBlocks*chunk.CodeSize
			var ids []chunk.ID
			for i := range uint32(6) {
				ids = append(ids, chunk.ID{File: 7, Index: i})
			}
			prepared(t, s, ids...)
			var wg sync.WaitGroup
			for w := range uint32(4) {
				wg.Go(func() { parallelWriter(t, s, ids, w) })
			}
			wg.Go(func() { parallelControl(t, s, ids) })
			wg.Wait()
			if n := len(s.cache.ring); n > len(ids) {
				t.Errorf("%d files are open", n)
			}
			must(t, s.Close())
			_, err := Check(fsys, dir, func(p Problem) { t.Error(p) })
			must(t, err)
		})
	}
}

func parallelWriter(t *testing.T, s *Store, ids []chunk.ID, w uint32) {
	rnd := rand.New(rand.NewPCG(uint64(w), 3))
	last := map[chunk.ID][]byte{}
	for i := range 60 {
		id := ids[rnd.IntN(len(ids))]
		off := w * 4 * bs
		a := Access{Version: 1, Layer: 1, Peer: true} // fences do not concern a peer
		data := pattern(uint64(i)<<8|uint64(w), 4*bs)
		if err := s.Write(id, a, off, data, sumsOf(id, off, data), i%16 == 0); err != nil {
			t.Error(err)
			return
		}
		last[id] = data
		for id, want := range last {
			got, err := readAll(s, id, a, off, 4*bs)
			if err != nil || string(got) != string(want) {
				t.Errorf("writer %d, chunk %s: other bytes (%v)", w, id, err)
				return
			}
		}
	}
}

func parallelControl(t *testing.T, s *Store, ids []chunk.ID) {
	for i := range uint64(20) {
		_, err := s.Fence(7, i+1)
		var all []ChunkVersion
		for _, id := range ids {
			all = append(all, ChunkVersion{id.Index, 1})
		}
		other := chunk.ID{File: 8, Index: uint32(i)}
		p := preparation(other)
		err = errors.Join(err, s.Flush(7, i+1), s.Settle(7, i+1, all), s.Raise(7, i+1, all),
			errors.Join(s.Prepare([]Preparation{p})...), write(s, other, access, 0, pattern(i, bs)), s.Remove([]chunk.ID{other}))
		if err != nil {
			t.Error(fmt.Errorf("round %d: %w", i, err))
			return
		}
	}
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) { bothWays(t, testCloseEndsWhatIsUnderWay) }

func testCloseEndsWhatIsUnderWay(t *testing.T) {
	m := disk.NewMem(1)
	created(t, m, "cs")
	s := opened(t, m, "cs", Options{})
	prepared(t, s, idA, idB)
	var wg sync.WaitGroup
	started := make(chan struct{}, 4)
	acked := make([][]byte, 4)
	for w := range uint32(4) {
		wg.Go(func() {
			for i := uint64(0); ; i++ {
				data := pattern(i<<8|uint64(w), bs)
				err := write(s, idA, access, w*bs, data)
				if errors.Is(err, ErrClosed) {
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				acked[w] = data
				if i == 0 {
					started <- struct{}{}
				}
			}
		})
	}
	for range 4 {
		<-started
	}
	must(t, s.Close())
	wg.Wait()
	m.Restart(true)
	s = opened(t, m, "cs", Options{})
	defer s.Close()
	for w := range uint32(4) {
		wantBytes(t, s, idA, access, w*bs, acked[w])
	}
	wantErr(t, func() error { c := s; c.Close(); return c.Close() }(), ErrClosed)
	wantErr(t, write(s, idA, access, 0, acked[0]), ErrClosed)
	_, err := s.Fence(7, 9)
	for _, err := range []error{err, s.Flush(7, 1), s.Settle(7, 1, nil), s.Raise(7, 0, nil), s.Demote(nil), s.Remove(nil),
		s.Promote(idA, 1), s.Absolve(idA, 1, 0, nil), errors.Join(s.Prepare([]Preparation{preparation(idA)})...)} {
		wantErr(t, err, ErrClosed)
	}
}
