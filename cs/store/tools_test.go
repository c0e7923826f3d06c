package store

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		must(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	must(t, err)
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
	}
}

func TestOrderOfWritesAndSyncs(t *testing.T) {
	m := disk.NewMem(1)
	var mu sync.Mutex
	out := &strings.Builder{}
	m.Fails(func(s disk.Step) error {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, "    %s\n", s)
		return nil
	})
	title := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(out, format+"\n", args...)
	}
	title("create")
	created(t, m, "cs")
	title("open")
	s := opened(t, m, "cs", Options{})
	title("prepare")
	prepared(t, s, idA)
	title("first write")
	must(t, write(s, idA, access, 0, pattern(1, 2*bs)))
	title("next write, 512 bytes")
	must(t, write(s, idA, access, bs, pattern(1, 512)))
	title("zero")
	must(t, s.Zero(idA, access, 0, bs, false))
	title("flush")
	must(t, s.Flush(7, 1))
	title("flush, nothing new")
	must(t, s.Flush(7, 1))
	title("write, on stable storage")
	must(t, s.Write(idA, access, 0, pattern(1, bs), sumsOf(idA, 0, pattern(1, bs)), true))
	title("settle")
	must(t, s.Settle(7, 1, []ChunkVersion{{0, 1}}))
	title("write into a new layer")
	must(t, write(s, idA, Access{Epoch: 1, Version: 1, Layer: 2}, 0, pattern(1, bs)))
	must(t, s.Flush(7, 1))
	title("raise")
	must(t, s.Raise(7, 1, []ChunkVersion{{0, 2}}))
	title("fence")
	_, err := s.Fence(7, 2)
	must(t, err)
	title("demote")
	must(t, s.Demote([]chunk.ID{idA}))
	title("prepare on the base")
	must(t, errors.Join(s.Prepare([]Preparation{rebuilt(idA, 3, 1, 2)})...))
	title("pull")
	_, err = s.Pull(idA, 3, 1, 0, 0, sumsOf(idA, 0, pattern(1, bs)), pattern(1, bs))
	must(t, err)
	title("sync of the replica")
	must(t, s.SyncReplica(idA, 3))
	title("promote")
	must(t, s.Promote(idA, 3))
	title("remove")
	must(t, s.Remove([]chunk.ID{idA}))
	title("close")
	must(t, s.Close())
	golden(t, "order.txt", out.String())
}

// damagedStore is a closed store with one of each thing that Check tells of.
func damagedStore(t *testing.T) *disk.Mem {
	m := disk.NewMem(1)
	created(t, m, "cs")
	s := opened(t, m, "cs", Options{})
	idC, idD := chunk.ID{File: 7, Index: 2}, chunk.ID{File: 9, Index: 300}
	prepared(t, s, idA, idB, idC, idD)
	for _, id := range []chunk.ID{idA, idB, idC, idD} {
		must(t, write(s, id, access, bs, pattern(uint64(id.Index), 3*bs)))
		must(t, s.Zero(id, access, 3*bs, bs, false))
	}
	must(t, write(s, idA, Access{Epoch: 1, Version: 1, Layer: 4}, 0, pattern(1, bs)))
	must(t, s.Settle(7, 1, []ChunkVersion{{0, 1}, {1, 1}, {2, 1}}))
	must(t, s.Settle(9, 1, []ChunkVersion{{300, 1}}))
	for _, id := range []chunk.ID{idB, idC, idD} {
		if id == idC {
			must(t, write(s, idC, access, 0, pattern(1, 512))) // open again
		}
		if id == idD {
			must(t, s.Demote([]chunk.ID{idD}))
		}
		_, err := s.lookup(id).top().f.WriteAt([]byte("damage"), chunk.DataOffset(testBlocks, 2))
		must(t, err)
	}
	must(t, m.MkdirAll("cs/chunks/ff"))
	stray, err := m.Create("cs/chunks/ff/stray")
	must(t, err)
	must(t, stray.Close())
	m.Restart(false)
	return m
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	m := damagedStore(t)
	out := &strings.Builder{}
	sum, err := Check(m, "cs", func(p Problem) { fmt.Fprintln(out, p) })
	must(t, err)
	fmt.Fprintf(out, "%+v\n", sum)
	golden(t, "check.txt", out.String())
}

func TestDumpTellsWhatIsThere(t *testing.T) {
	m := damagedStore(t)
	out := &strings.Builder{}
	must(t, Dump(m, "cs", out, nil))
	out.WriteString("\n")
	must(t, Dump(m, "cs", out, &idA))
	golden(t, "dump.txt", out.String())
	wantErr(t, Dump(m, "cs", out, &chunk.ID{File: 1}), ErrNoChunk)
}

func TestEqualReplicasHaveEqualSums(t *testing.T) {
	sums := func(last uint64) []LayerSum {
		s, m := memStore(t, idA)
		must(t, write(s, idA, access, 0, pattern(1, bs)))
		must(t, write(s, idA, access, bs, pattern(last, bs)))
		must(t, s.Close())
		found, err := Sums(m, "cs")
		must(t, err)
		return found
	}
	one, same, other := sums(2), sums(2), sums(3)
	if len(one) != 1 || one[0] != same[0] || one[0].State != InSync.String() {
		t.Errorf("%v and %v: want one line each, and equal ones", one, same)
	}
	if one[0].Sum == other[0].Sum {
		t.Error("replicas with other data have the same sum")
	}
}

func TestMissingOrForeignFileIsDamage(t *testing.T) {
	s, m := memStore(t, idA, idB)
	a, b := s.layerName(idA, 1), s.layerName(idB, 1)
	must(t, s.Close())
	must(t, m.Remove(a))
	f, err := m.Open(b)
	must(t, err)
	p := make([]byte, chunk.HeaderSize)
	chunk.Header{ID: idA, Layer: 1, Blocks: testBlocks}.Encode(p)
	_, err = f.WriteAt(p, 0)
	must(t, err)
	sum, err := Check(m, "cs", func(Problem) {})
	must(t, err)
	if sum.Damaged != 2 {
		t.Errorf("%d damaged, want both", sum.Damaged)
	}
	s = opened(t, m, "cs", Options{})
	defer s.Close()
	for _, id := range []chunk.ID{idA, idB} {
		_, err := readAll(s, id, access, 0, bs)
		wantErr(t, err, ErrIO)
		wantErr(t, write(s, id, access, 0, pattern(1, bs)), ErrIO)
	}
}

func FuzzDecodeRecord(f *testing.F) {
	f.Add(record{state: InSync, blocks: testBlocks, version: 3, layers: []uint32{1, 5}}.encode())
	f.Add(record{state: Stale, damaged: true, blocks: testBlocks}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b)
		if err != nil {
			wantErr(t, err, ErrFormat)
			return
		}
		if string(r.encode()) != string(b) {
			t.Fatalf("% x is not what encoding gives", b)
		}
	})
}
