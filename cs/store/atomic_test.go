package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"sync"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
	"pstorage/meta/rules"
)

// image is what a chunk's first blocks should read as.
type image [crashBlocks * bs]byte

// atomicOf makes an atomic write of blocks with data but for those zeroed, and returns the image after it.
func atomicOf(was image, seed uint64, first, n int, zeroed ...int) (codes []uint32, data []byte, after image) {
	after = was
	for i := range n {
		at := after[(first+i)*bs:][:bs]
		copy(at, pattern(seed*100+uint64(i), bs))
		code := chunk.BlockSum(idA, uint32(first+i), at)
		for _, z := range zeroed {
			if z == i {
				clear(at)
				code = chunk.Zeros
			}
		}
		if codes = append(codes, code); chunk.HasData(code) {
			data = append(data, at...)
		}
	}
	return codes, data, after
}

// atomicScript has each of its writes follow one that is durable, so that a crash leaves the image before it or the one after it.
func atomicScript(s *Store, now *[2]image) error {
	base := pattern(1, 4*bs)
	if err := s.Write(idA, access, 0, base, sumsOf(idA, 0, base), true); err != nil {
		return err
	}
	copy(now[0][:], base)
	now[1] = now[0]
	for i, w := range []struct {
		first, n int
		zeroed   []int
	}{{1, 4, []int{2}}, {2, 4, nil}, {0, 6, []int{0, 5}}, {3, 1, nil}} {
		codes, data, after := atomicOf(now[0], uint64(i)+2, w.first, w.n, w.zeroed...)
		now[1] = after
		if err := s.WriteAtomic(idA, access, uint32(w.first*bs), codes, data); err != nil {
			return err
		}
		now[0] = after
	}
	return nil
}

func TestAnAtomicWriteIsThereAsAWholeAfterACrashAtAnyStep(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		for _, power := range []bool{false, true} {
			for round := range 8 {
				over := false
				for step := 1; !over && !t.Failed(); step++ {
					var err error
					again := 7*round + step%7
					if over, err = crashAtomic(t, step, again, power, Options{}); err != nil {
						t.Errorf("step %d, then %d, power %t: %v", step, again, power, err)
					}
				}
			}
		}
	})
}

func TestAnAtomicWriteIsTornWithoutItsIntent(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		for step, over := 1, false; !over; step++ {
			var err error
			if over, err = crashAtomic(t, step, 0, false, Options{LeftOut: rules.Atomic}); errors.Is(err, errTorn) {
				return
			}
		}
		t.Error("no crash shows what the intent is for")
	})
}

var errTorn = errors.New("the blocks are neither those before the write nor those after it")

// crashAtomic ends the script in a step, and the next life, if again is not 0, in that step; then it looks what is there. over: the script has
// fewer steps.
func crashAtomic(t *testing.T, step, again int, power bool, o Options) (over bool, err error) {
	m := disk.NewMem(uint64(step))
	created(t, m, "cs")
	s := opened(t, m, "cs", o)
	prepared(t, s, idA)
	m.Dies(step)
	var now [2]image
	over = atomicScript(s, &now) == nil
	_ = s.Close()
	m.Restart(power)
	if again > 0 {
		m.Dies(again)
		if s, err := Open(m, "cs", o); err == nil {
			_ = s.Close()
		}
		m.Restart(power)
	}
	s = opened(t, m, "cs", o)
	defer s.Close()
	must(t, s.Absolve(idA, 1, 0, func(layer, block uint32) []byte { return nil }))
	got, err := readAll(s, idA, access, 0, crashBlocks*bs)
	if err != nil || now[0] == (image{}) || bytes.Equal(got, now[0][:]) || bytes.Equal(got, now[1][:]) {
		return over, err
	}
	return over, errTorn
}

// intents are the keys of those in the database.
func intents(t *testing.T, s *Store) (keys []string) {
	t.Helper()
	must(t, s.db.db.Load(func(key, _ []byte) error {
		if key[0] == kindIntent {
			keys = append(keys, string(key))
		}
		return nil
	}))
	return keys
}

func TestAnAtomicWriteThatFindsNoSpaceLeavesNothing(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		for _, at := range []int{1, 2, 3} {
			s, m := memStore(t, idA)
			base := pattern(1, 2*bs)
			must(t, write(s, idA, access, bs, base))
			codes, data, _ := atomicOf(image{}, 2, 0, 5)
			writes := 0
			m.Fails(func(step disk.Step) error {
				if step.Op == disk.OpWrite && strings.Contains(step.Name, chunksName) {
					if writes++; writes == at {
						return disk.ErrNoSpace
					}
				}
				return nil
			})
			wantErr(t, s.WriteAtomic(idA, access, 0, codes, data), ErrNoSpace)
			m.Fails(nil)
			want := make([]byte, 5*bs)
			copy(want[bs:], base)
			wantBytes(t, s, idA, access, 0, want)
			if left := intents(t, s); len(left) > 0 {
				t.Errorf("write %d: an intent is left", at)
			}
			must(t, s.WriteAtomic(idA, access, 0, codes, data))
			wantBytes(t, s, idA, access, 0, data)
			must(t, s.Close())
		}
	})
}

// TestAnAtomicWriteThatFailsEndsTheReplica: its intent goes when the replica is made anew, not to be carried out on that.
func TestAnAtomicWriteThatFailsEndsTheReplica(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		s, m := memStore(t, idA)
		must(t, write(s, idA, access, 0, pattern(1, 5*bs)))
		codes, data, _ := atomicOf(image{}, 2, 0, 5)
		commits := 0
		m.Fails(func(step disk.Step) error {
			switch {
			case step.Op == disk.OpCommit:
				commits++
			case step.Op == disk.OpWrite && commits == 1 && strings.Contains(step.Name, chunksName):
				return disk.ErrIO
			}
			return nil
		})
		wantErr(t, s.WriteAtomic(idA, access, 0, codes, data), ErrIO)
		m.Fails(nil)
		_, err := readAll(s, idA, access, 0, bs)
		if err == nil {
			t.Error("it is still read")
		}
		must(t, s.condemn(s.lookup(idA)))
		if len(intents(t, s)) != 1 {
			t.Error("the intent has gone before the replica")
		}
		p := preparation(idA)
		p.State, p.Version = Syncing, 2
		must(t, errors.Join(s.Prepare([]Preparation{p})...))
		if len(intents(t, s)) != 0 {
			t.Error("the intent is still there")
		}
	})
}

func TestNoReadSeesAPartOfAnAtomicWrite(t *testing.T) {
	bothWays(t, func(t *testing.T) {
		s, _ := memStore(t, idA)
		var images [2]image
		for i := range images {
			codes, data, after := atomicOf(image{}, uint64(i)+1, 0, crashBlocks)
			images[i] = after
			must(t, s.WriteAtomic(idA, access, 0, codes, data))
		}
		stop := make(chan struct{})
		var readers sync.WaitGroup
		for range 2 {
			readers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					got, err := readAll(s, idA, access, 0, crashBlocks*bs)
					if err != nil || !bytes.Equal(got, images[0][:]) && !bytes.Equal(got, images[1][:]) {
						t.Errorf("a reader sees a part: %v", err)
						return
					}
				}
			})
		}
		for i := range 60 {
			codes, data, _ := atomicOf(image{}, uint64(i%2)+1, 0, crashBlocks)
			must(t, s.WriteAtomic(idA, access, 0, codes, data))
		}
		close(stop)
		readers.Wait()
	})
}

func TestAtomicWritesAreAdmittedAsOthersAre(t *testing.T) {
	s, _ := memStore(t, idA)
	codes, data, _ := atomicOf(image{}, 1, 0, 2)
	stale := access
	stale.Version = 9
	var version ErrStaleVersion
	if err := s.WriteAtomic(idA, stale, 0, codes, data); !errors.As(err, &version) {
		t.Errorf("of another version: %v", err)
	}
	wantErr(t, s.WriteAtomic(idB, access, 0, codes, data), ErrNoChunk)
	wantErr(t, s.WriteAtomic(idA, access, 512, codes, data), ErrInvalid)
	wantErr(t, s.WriteAtomic(idA, access, 0, codes, data[:bs]), ErrInvalid)
	wantErr(t, s.WriteAtomic(idA, access, bs, codes, data), ErrBadSum) // they are those of other blocks
	wantErr(t, s.WriteAtomic(idA, access, 0, make([]uint32, MaxAtomic+1), nil), ErrInvalid)
	wantErr(t, s.WriteAtomic(idA, access, 0, nil, nil), ErrInvalid)
	must(t, s.WriteAtomic(idA, access, 0, codes, data))
	if len(intents(t, s)) != 0 {
		t.Error("an intent is left")
	}
}

func goldenIntent() intent {
	codes, data, _ := atomicOf(image{}, 3, 1, 3, 1)
	return intent{layer: 1, first: 1, codes: codes, data: data}
}

func TestIntentsKeepTheirFormat(t *testing.T) {
	b := goldenIntent().encode()
	if got := fmt.Sprintf("%d % x .. % x", len(b), b[:28], b[len(b)-4:]); got != goldenIntentBytes {
		t.Errorf("an intent is %s", got)
	}
	in, err := decodeIntent(idA, b)
	must(t, err)
	if !bytes.Equal(in.encode(), b) {
		t.Error("decoded, it is another")
	}
	_, err = decodeIntent(idB, b)
	wantErr(t, err, ErrFormat)
}

const goldenIntentBytes = "8224 01 00 00 00 01 00 00 00 01 00 00 00 03 00 00 00 a0 b0 29 5d 01 00 00 00 9e 3e b8 cb .. 04 12 2c 70"

// FuzzDecodeIntent has what it makes up end with its checksum: nearly nothing would be looked at otherwise.
func FuzzDecodeIntent(f *testing.F) {
	for _, in := range []intent{goldenIntent(), {layer: 2, codes: []uint32{chunk.Zeros, chunk.Absent}}} {
		b := in.encode()
		f.Add(b[:len(b)-4])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		b = binary.LittleEndian.AppendUint32(b[:len(b):len(b)], crc32.Checksum(b, castagnoli))
		in, err := decodeIntent(idA, b)
		if err != nil {
			wantErr(t, err, ErrFormat)
			return
		}
		if !bytes.Equal(in.encode(), b) {
			t.Fatalf("% x is not what encoding gives", b)
		}
	})
}
