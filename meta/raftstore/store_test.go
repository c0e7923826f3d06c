package raftstore

import (
	"bytes"
	"errors"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

func openStore(t testing.TB, path string) *Store {
	t.Helper()
	s, err := open(path, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func entry(i uint64) *raft.Log {
	return &raft.Log{Index: i, Term: 3, Type: raft.LogCommand, Data: bytes.Repeat([]byte{byte(i)}, int(i%50)+1), AppendedAt: time.Unix(0, 1234567890+int64(i))}
}

func TestWhatIsStoredIsThereAfterOpeningAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "raft.db")
	s := openStore(t, path)
	want := []*raft.Log{entry(5), entry(6), {Index: 7, Term: 4, Type: raft.LogNoop, Extensions: []byte("x")}}
	if err := s.StoreLogs(want); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.SetUint64([]byte("term"), 9), s.Set([]byte("vote"), []byte("a"))); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s = openStore(t, path)
	for _, w := range want {
		var got raft.Log
		if err := s.GetLog(w.Index, &got); err != nil || !reflect.DeepEqual(&got, w) {
			t.Fatalf("entry %d: %+v, %v; want %+v", w.Index, got, err, w)
		}
	}
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	if first != 5 || last != 7 {
		t.Fatalf("indices %d to %d, want 5 to 7", first, last)
	}
	if n, err := s.GetUint64([]byte("term")); n != 9 || err != nil {
		t.Fatalf("term %d, %v", n, err)
	}
}

func TestAbsentThingsAreNamedAsRaftExpects(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "raft.db"))
	if err := s.GetLog(1, &raft.Log{}); !errors.Is(err, raft.ErrLogNotFound) {
		t.Fatalf("%v, want ErrLogNotFound", err)
	}
	if _, err := s.GetUint64([]byte("x")); err == nil || err.Error() != "not found" {
		t.Fatalf("%v, want \"not found\"", err)
	}
	for _, edge := range []func() (uint64, error){s.FirstIndex, s.LastIndex} {
		if i, err := edge(); i != 0 || err != nil {
			t.Fatalf("edge of an empty log: %d, %v", i, err)
		}
	}
}

// The log behaves as a map from index to entry does.
func TestTheLogIsAMap(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := openStore(t, filepath.Join(t.TempDir(), "raft.db"))
		defer s.Close()
		want := map[uint64]*raft.Log{}
		next := rapid.Uint64Range(1, 1000).Draw(rt, "first")
		for range rapid.IntRange(1, 12).Draw(rt, "steps") {
			if rapid.Bool().Draw(rt, "append") || len(want) == 0 {
				var batch []*raft.Log
				for range rapid.IntRange(1, 20).Draw(rt, "count") {
					batch = append(batch, entry(next))
					want[next] = entry(next)
					next++
				}
				check(rt, s.StoreLogs(batch))
			} else {
				next = cut(rt, s, want, next)
			}
			compare(rt, s, want)
		}
	})
}

// cut removes a head or a tail, as Raft does.
func cut(rt *rapid.T, s *Store, want map[uint64]*raft.Log, next uint64) uint64 {
	first, _ := s.FirstIndex()
	at := rapid.Uint64Range(first, next-1).Draw(rt, "at")
	low, high := first, at
	if rapid.Bool().Draw(rt, "tail") {
		low, high = at, next-1
	}
	check(rt, s.DeleteRange(low, high))
	for i := low; i <= high; i++ {
		delete(want, i)
	}
	if high == next-1 {
		return low
	}
	return next
}

func check(rt *rapid.T, err error) {
	if err != nil {
		rt.Fatal(err)
	}
}

func compare(rt *rapid.T, s *Store, want map[uint64]*raft.Log) {
	first, err := s.FirstIndex()
	check(rt, err)
	last, err := s.LastIndex()
	check(rt, err)
	if len(want) == 0 && (first != 0 || last != 0) || len(want) > 0 && int(last-first)+1 != len(want) {
		rt.Fatalf("indices %d to %d, want %d entries", first, last, len(want))
	}
	for i, w := range want {
		var got raft.Log
		if err := s.GetLog(i, &got); err != nil || !reflect.DeepEqual(&got, w) {
			rt.Fatalf("entry %d: %+v, %v", i, got, err)
		}
	}
}

func TestADamagedEntryIsNotBelieved(t *testing.T) {
	good := encode(entry(8))
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		if err := decode(8, bad, &raft.Log{}); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d flipped: %v, want ErrCorrupt", i, err)
		}
	}
	if err := decode(9, good, &raft.Log{}); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("in another's place: %v, want ErrCorrupt", err)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	f.Add(uint64(8), encode(entry(8)))
	f.Fuzz(func(t *testing.T, index uint64, v []byte) {
		var l raft.Log
		if decode(index, v, &l) != nil {
			// With the right sum the body's own checks are reached.
			if len(v) < 4 {
				return
			}
			body := v[:len(v)-4]
			fixed := append(bytes.Clone(body), 0, 0, 0, 0)
			s := sum(index, body)
			fixed[len(body)], fixed[len(body)+1], fixed[len(body)+2], fixed[len(body)+3] = byte(s), byte(s>>8), byte(s>>16), byte(s>>24)
			if decode(index, fixed, &l) != nil {
				return
			}
		}
		var again raft.Log
		if err := decode(index, encode(&l), &again); err != nil || !reflect.DeepEqual(l, again) {
			t.Fatalf("%+v became %+v, %v", l, again, err)
		}
	})
}
