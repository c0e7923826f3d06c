package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

const (
	testBlocks = chunk.MinBlocks
	bs         = chunk.BlockSize
)

var (
	idA = chunk.ID{File: 7, Index: 0}
	idB = chunk.ID{File: 7, Index: 1}
)

// access is what the file's holder sends at first.
var access = Access{Epoch: 1, Version: 1, Layer: 1}

// troubles collects what a store reports.
type troubles struct {
	mu   sync.Mutex
	seen []string
	ids  []chunk.ID
}

func (tr *troubles) add(id chunk.ID, what string, corrupt bool) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if corrupt {
		what = "corrupt: " + what
	}
	tr.seen, tr.ids = append(tr.seen, what), append(tr.ids, id)
}

func (tr *troubles) count() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.seen)
}

type fataler interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
}

// withJournal has created add a journal of that many bytes. bothWays sets it.
var withJournal int64

// journalSize is small, so that it fills up.
const journalSize = 256 << 10

// checkpointed empties the journal, if there is one.
func checkpointed(t fataler, s *Store) {
	t.Helper()
	if s.journal != nil {
		must(t, s.checkpoint())
	}
}

// bothWays runs a test on stores without a journal, and on stores with one: they must behave alike.
func bothWays(t *testing.T, test func(t *testing.T)) {
	t.Run("plain", test)
	t.Run("journal", func(t *testing.T) {
		withJournal = journalSize
		defer func() { withJournal = 0 }()
		test(t)
	})
}

func created(t fataler, fsys disk.FS, dir string) {
	t.Helper()
	if err := Create(fsys, dir); err != nil {
		t.Fatal(err)
	}
	if withJournal > 0 {
		must(t, AddJournal(fsys, dir, dir+"-ssd/journal", withJournal))
	}
}

func opened(t fataler, fsys disk.FS, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(fsys, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// memStore is a new store on a disk in memory, with replicas in sync of the chunks given.
func memStore(t *testing.T, ids ...chunk.ID) (*Store, *disk.Mem) {
	t.Helper()
	m := disk.NewMem(1)
	created(t, m, "cs")
	s := opened(t, m, "cs", Options{})
	t.Cleanup(func() { _ = s.Close() })
	prepared(t, s, ids...)
	return s, m
}

func preparation(id chunk.ID) Preparation {
	return Preparation{ID: id, Blocks: testBlocks, Layers: []uint32{1}, Epoch: 1, Version: 1, State: InSync}
}

func prepared(t fataler, s *Store, ids ...chunk.ID) {
	t.Helper()
	var ps []Preparation
	for _, id := range ids {
		ps = append(ps, preparation(id))
	}
	must(t, errors.Join(s.Prepare(ps)...))
}

func must(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t fataler, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

// pattern returns n bytes that tell where they are from.
func pattern(seed uint64, n int) []byte {
	p := make([]byte, n)
	rnd := rand.New(rand.NewPCG(seed, 9))
	for i := 0; i+8 <= n; i += 8 {
		binary.LittleEndian.PutUint64(p[i:], rnd.Uint64()|1)
	}
	return p
}

// sumsOf returns the sums a writer sends with data at off.
func sumsOf(id chunk.ID, off uint32, data []byte) []uint32 {
	var sums []uint32
	for len(data) > 0 {
		n := min(len(data), int(bs-off%bs))
		sums = append(sums, chunk.BlockSum(id, off/bs, data[:n]))
		data, off = data[n:], off+uint32(n)
	}
	return sums
}

func write(s *Store, id chunk.ID, a Access, off uint32, data []byte) error {
	return s.Write(id, a, off, data, sumsOf(id, off, data), false)
}

// readAll reads a range and lays the packed data out, verified.
func readAll(s *Store, id chunk.ID, a Access, off, length uint32) ([]byte, error) {
	codes := make([]uint32, length/bs)
	packed, err := s.Read(id, a, off, length, codes, nil, false)
	if err != nil {
		return nil, err
	}
	return unpack(id, off, codes, packed)
}

func unpack(id chunk.ID, off uint32, codes []uint32, packed []byte) ([]byte, error) {
	out := make([]byte, len(codes)*bs)
	for i, c := range codes {
		if !chunk.HasData(c) {
			continue
		}
		block := off/bs + uint32(i)
		if !chunk.Verify(id, block, c, packed[:bs]) {
			return out, ErrCorrupt{Block: block}
		}
		copy(out[i*bs:], packed[:bs])
		packed = packed[bs:]
	}
	if len(packed) != 0 {
		return nil, errors.New("more data than codes")
	}
	return out, nil
}

func wantBytes(t fataler, s *Store, id chunk.ID, a Access, off uint32, want []byte) {
	t.Helper()
	got, err := readAll(s, id, a, off, uint32(len(want)))
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatalf("chunk %s at %d: other bytes than were written", id, off)
	}
}

func inventory(s *Store) map[chunk.ID]Replica {
	all := map[chunk.ID]Replica{}
	s.Inventory(func(r Replica) bool { all[r.ID] = r; return true })
	return all
}
