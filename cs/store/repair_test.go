package store

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

var repairIDs = []chunk.ID{{File: 7, Index: 0}, {File: 7, Index: 1}, {File: 7, Index: 300}, {File: 9, Index: 0}}

// repairable is a closed store: of file 7 settled chunks in two layers, of file 9 an open one.
func repairable(t *testing.T, fsys disk.FS, dir string) {
	t.Helper()
	created(t, fsys, dir)
	s := opened(t, fsys, dir, Options{})
	prepared(t, s, repairIDs...)
	for i, id := range repairIDs {
		must(t, write(s, id, access, 0, pattern(uint64(i), 8*bs)))
		must(t, write(s, id, Access{Epoch: 1, Version: 1, Layer: 4}, 4*bs, pattern(uint64(10+i), 8*bs)))
	}
	must(t, s.Settle(7, 1, []ChunkVersion{{0, 1}, {1, 1}, {300, 1}}))
	must(t, s.Close())
}

// wantBlock is what a block of the i-th chunk holds.
func wantBlock(i int, block uint32) []byte {
	if block >= 4 {
		return pattern(uint64(10+i), 8*bs)[(block-4)*bs : (block-3)*bs]
	}
	return pattern(uint64(i), 8*bs)[block*bs : (block+1)*bs]
}

// state of a store as the cluster sees it.
type seen struct {
	replicas map[chunk.ID]Replica
	readable map[string]bool // "chunk block"
}

// look opens a store and reads all it serves. Nothing that it serves may be other data than were written.
func look(t *testing.T, fsys disk.FS, dir string) (out seen) {
	t.Helper()
	out = seen{map[chunk.ID]Replica{}, map[string]bool{}}
	s, err := Open(fsys, dir, Options{})
	if err != nil {
		return out // it serves nothing
	}
	defer s.Close()
	out.replicas = inventory(s)
	for i, id := range repairIDs {
		for block := range uint32(12) {
			got, err := readAll(s, id, Access{Epoch: 1, Version: out.replicas[id].Version, Layer: 4}, block*bs, bs)
			if err != nil {
				continue
			}
			if string(got) != string(wantBlock(i, block)) {
				t.Errorf("chunk %s serves other data in block %d", id, block)
			}
			out.readable[fmt.Sprint(id, block)] = true
		}
	}
	return out
}

// hurt damages a store in one random way, which it describes.
func hurt(t *testing.T, m *disk.Mem, rnd *rand.Rand) string {
	i := rnd.IntN(len(repairIDs))
	layer := []uint32{1, 4}[rnd.IntN(2)]
	name := "cs/" + layerName(repairIDs[i], layer)
	size := chunk.FileSize(testBlocks)
	switch rnd.IntN(10) {
	case 0:
		must(t, ignoreMissing(m.Remove(name)))
		return "remove " + name
	case 1:
		return "header of " + name + scribble(t, m, name, rnd.Int64N(36))
	case 2, 3:
		return "data of " + name + scribble(t, m, name, dataAt(rnd.Uint32N(12))+rnd.Int64N(bs))
	case 4:
		off := size - 1 - rnd.Int64N(size)
		must(t, ignoreMissing(resize(m, name, off)))
		return fmt.Sprintf("cut %s at %d", name, off)
	case 5:
		must(t, ignoreMissing(resize(m, name, size+1+rnd.Int64N(9000))))
		return "lengthen " + name
	case 6:
		makeStray(t, m, chunk.Header{ID: chunk.ID{File: 11, Index: rnd.Uint32N(5)}, Layer: 1, Blocks: testBlocks}, rnd.IntN(2) == 0)
		return "stray"
	case 8:
		m.Stable("cs/state.db", nil).(*memKV).values[string(metaKey(metaClean))] = []byte{0}
		return "not closed: an open chunk is suspect"
	case 7:
		kv := m.Stable("cs/state.db", nil).(*memKV)
		kv.values[string(idKey(kindReplica, repairIDs[i]))] = []byte("damage")
		return "database: a record"
	default:
		kv := m.Stable("cs/state.db", nil).(*memKV)
		kv.exists = false
		return "database gone"
	}
}

func scribble(t *testing.T, m *disk.Mem, name string, off int64) string {
	if _, err := m.Allocated(name); err == nil {
		f, err := m.Open(name)
		must(t, err)
		_, err = f.WriteAt([]byte{byte(off) | 1, 0xa5}, off)
		must(t, errors.Join(err, f.Close()))
	}
	return fmt.Sprintf(" at %d", off)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func makeStray(t *testing.T, m *disk.Mem, h chunk.Header, data bool) {
	must(t, m.MkdirAll("cs/"+folderName(h.ID)))
	name := "cs/" + layerName(h.ID, h.Layer)
	f, err := m.Create(name)
	if errors.Is(err, fs.ErrExist) {
		return
	}
	must(t, err)
	p := make([]byte, chunk.HeaderSize)
	h.Encode(p)
	_, err = f.WriteAt(p, 0)
	must(t, errors.Join(err, f.Truncate(chunk.FileSize(h.Blocks))))
	if data {
		_, err = f.WriteAt([]byte{9, 9, 9, 9}, chunk.CodeOffset(3))
	}
	must(t, errors.Join(err, f.Close()))
}

// Whatever is damaged: after a repair everything can be read that could be read before, nothing is served that was not written, no replica claims
// more than it did, and another check finds nothing that is not marked.
func TestRepairNeverMakesAnythingWorse(t *testing.T) {
	for seed := range uint64(150) {
		damaged := func() (*disk.Mem, []string) {
			m, rnd := disk.NewMem(1), rand.New(rand.NewPCG(seed, 3))
			repairable(t, m, "cs")
			var did []string
			for range 1 + rnd.IntN(4) {
				did = append(did, hurt(t, m, rnd))
			}
			return m, did
		}
		m, did := damaged()
		before := look(t, m, "cs")
		m, _ = damaged()
		_, broken := readState(m, "cs")
		done, err := Repair(m, "cs", RepairOptions{}, func(string) {})
		if err != nil {
			t.Fatalf("seed %d, %q: %v", seed, did, err)
		}
		again, err := Repair(m, "cs", RepairOptions{}, func(s string) { t.Errorf("seed %d, %q: not all at once: %s", seed, did, s) })
		must(t, err)
		if again != (Repaired{}) {
			t.Errorf("seed %d, %q: %+v, then %+v", seed, did, done, again)
		}
		_, err = Check(m, "cs", func(p Problem) {
			if p.Severity == Damage && p.Layer == 0 || strings.Contains(p.What, "no replica") {
				t.Errorf("seed %d, %q: left: %s", seed, did, p)
			}
		})
		must(t, err)
		after := look(t, m, "cs")
		for what := range before.readable {
			if !after.readable[what] {
				t.Errorf("seed %d, %q: %s could be read before", seed, did, what)
			}
		}
		for id, r := range after.replicas {
			was, had := before.replicas[id]
			switch {
			case broken != nil && (r.State != Stale || r.Suspect == Sound):
				t.Errorf("seed %d, %q: %+v, made from its files", seed, did, r)
			case broken == nil && (!had || r.State != was.State || r.Version != was.Version || r.Suspect < was.Suspect):
				t.Errorf("seed %d, %q: %+v claims more than %+v", seed, did, r, was)
			}
		}
		if t.Failed() {
			return
		}
	}
}

func TestRepairCutOffAtAnyStepCanBeRepeated(t *testing.T) {
	for _, power := range []bool{false, true} {
		for step, done := 1, false; !done; step += 3 {
			m := disk.NewMem(uint64(step))
			repairable(t, m, "cs")
			scribble(t, m, "cs/"+layerName(repairIDs[0], 1), 20)
			must(t, resize(m, "cs/"+layerName(repairIDs[1], 4), chunk.FileSize(testBlocks)-5*bs))
			makeStray(t, m, chunk.Header{ID: chunk.ID{File: 11}, Layer: 1, Blocks: testBlocks}, true)
			before := len(look(t, m, "cs").readable)
			m.Dies(step)
			_, err := Repair(m, "cs", RepairOptions{}, func(string) {})
			done = err == nil
			m.Restart(power)
			_, err = Repair(m, "cs", RepairOptions{}, func(string) {})
			must(t, err)
			if after := len(look(t, m, "cs").readable); after < before {
				t.Fatalf("cut off in step %d: %d blocks can be read, %d before", step, after, before)
			}
		}
	}
}

func TestWhatIsProvenIsMended(t *testing.T) {
	m := disk.NewMem(1)
	repairable(t, m, "cs")
	scribble(t, m, "cs/"+layerName(repairIDs[0], 1), 20)
	must(t, resize(m, "cs/"+layerName(repairIDs[1], 4), chunk.FileSize(testBlocks)-5*bs))
	must(t, resize(m, "cs/"+layerName(repairIDs[2], 4), chunk.CodeOffset(100))) // what of the table is gone would read as zeros
	done, err := Repair(m, "cs", RepairOptions{}, func(string) {})
	must(t, err)
	if done != (Repaired{Mended: 2, Marked: 1}) {
		t.Errorf("%+v", done)
	}
	if n := len(look(t, m, "cs").readable); n != 3*12 {
		t.Errorf("%d blocks can be read", n)
	}
}

// A store made from its files is the base of a rebuild, verified block by block.
func TestStoreMadeFromItsFilesIsABase(t *testing.T) {
	m := disk.NewMem(1)
	repairable(t, m, "cs")
	m.Stable("cs/state.db", nil).(*memKV).exists = false
	scribble(t, m, "cs/"+layerName(repairIDs[0], 1), dataAt(2))
	done, err := Repair(m, "cs", RepairOptions{}, func(string) {})
	must(t, err)
	if done.Rebuilt != len(repairIDs) {
		t.Errorf("%+v", done)
	}
	s := opened(t, m, "cs", Options{})
	defer s.Close()
	must(t, errors.Join(s.Prepare([]Preparation{rebuilt(repairIDs[0], 9, 1, 4)})...))
	codes := make([]uint32, 8)
	must(t, s.Table(repairIDs[0], Access{Version: 9, Layer: 1, Peer: true}, 0, 8*bs, codes, true))
	for block, code := range codes {
		if (code == chunk.Absent) != (block == 2) {
			t.Errorf("block %d: code %08x", block, code)
		}
	}
}

func TestAsALastResortFilesAreBelievedAsSuspects(t *testing.T) {
	m := disk.NewMem(1)
	repairable(t, m, "cs")
	m.Stable("cs/state.db", nil).(*memKV).exists = false
	must(t, resize(m, "cs/"+layerName(repairIDs[1], 1), 10)) // what is left is not all of the chunk
	_, err := Repair(m, "cs", RepairOptions{InSync: true}, func(string) {})
	must(t, err)
	s := opened(t, m, "cs", Options{})
	defer s.Close()
	for id, r := range inventory(s) {
		if want := map[bool]State{false: InSync, true: Stale}[id == repairIDs[1]]; r.State != want || r.Suspect != MachineDied {
			t.Errorf("%+v", r)
		}
	}
	_, err = s.Fence(7, 3)
	must(t, err)
	must(t, s.Absolve(repairIDs[0], 5, 0, func(uint32, uint32) []byte { return nil }))
	wantBytes(t, s, repairIDs[0], Access{Epoch: 3, Version: 5, Layer: 4}, 0, append(pattern(0, 4*bs), pattern(10, 8*bs)...))
}

// On a real disk: the database is bbolt's, which panics or worse on damaged pages.
func TestDamagedDatabaseIsMadeAnewAndKept(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	for i := range 36 {
		dir := filepath.Join(t.TempDir(), "cs")
		repairable(t, disk.OS{}, dir)
		name := dir + "/" + stateName
		b, err := os.ReadFile(name)
		must(t, err)
		switch {
		case i == 0:
			must(t, os.Remove(name))
		case i < 12:
			must(t, os.Truncate(name, rnd.Int64N(int64(len(b)))))
		default:
			for range 1 + rnd.IntN(200) {
				b[rnd.IntN(len(b))] ^= 1 << rnd.IntN(8)
			}
			must(t, os.WriteFile(name, b, 0o600))
		}
		_, broken := readState(disk.OS{}, dir)
		done, err := Repair(disk.OS{}, dir, RepairOptions{}, func(string) {})
		if errors.Is(err, ErrVersion) { // so it says, and a newer program's is not to be touched
			continue
		}
		must(t, err)
		if broken == nil {
			continue
		}
		if done.Rebuilt != len(repairIDs) || (done.Kept == "") != (i == 0) {
			t.Errorf("%d: %+v", i, done)
		}
		s := opened(t, disk.OS{}, dir, Options{})
		if all := inventory(s); len(all) != len(repairIDs) || all[repairIDs[0]].State != Stale {
			t.Errorf("%d: %+v", i, all)
		}
		must(t, s.Close())
	}
}

func TestStoreInUseOrOfAnotherVersionIsNotRepaired(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cs")
	repairable(t, disk.OS{}, dir)
	s := opened(t, disk.OS{}, dir, Options{})
	_, err := Repair(disk.OS{}, dir, RepairOptions{}, func(string) {})
	wantErr(t, err, ErrLocked)
	must(t, s.db.commit(Change{Key: metaKey(metaFormat), Value: []byte{9, 0, 0, 0}}))
	must(t, s.Close())
	_, err = Repair(disk.OS{}, dir, RepairOptions{}, func(string) {})
	wantErr(t, err, ErrVersion)
}
