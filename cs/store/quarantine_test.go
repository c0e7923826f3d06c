package store

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

func setAsideNow(t *testing.T, m *disk.Mem) []Aside {
	t.Helper()
	all, err := asides(m, "cs")
	must(t, err)
	return all
}

func TestBadReplicasAreSetAsideWhenTheyGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m, _ := troubled(t, idA, idB)
		must(t, write(s, idA, access, 0, pattern(1, bs)))
		must(t, write(s, idA, Access{Epoch: 1, Version: 1, Layer: 4}, 0, pattern(2, bs)))
		must(t, s.Quarantine(idA))
		must(t, s.Remove([]chunk.ID{idA, idB}))
		all := setAsideNow(t, m)
		if len(all) != 2 || all[0].ID != idA || all[0].Layer != 1 || all[1].Layer != 4 || !all[0].When.Equal(time.Now().UTC().Truncate(time.Second)) {
			t.Fatalf("set aside: %+v", all)
		}
		f, err := m.Open("cs/" + all[1].Name)
		must(t, err)
		_, err = checkHeader(f, chunk.Header{ID: idA, Layer: 4, Blocks: testBlocks})
		must(t, err)
		must(t, f.Close())
		// Again in the same second; and as the base that a rebuild does not want.
		prepared(t, s, idA)
		must(t, s.Quarantine(idA))
		must(t, errors.Join(s.Prepare([]Preparation{rebuilt(idA, 2, 1)})...))
		if all := setAsideNow(t, m); len(all) != 3 {
			t.Errorf("set aside: %+v", all)
		}
		must(t, s.Close())
		sum, err := Check(m, "cs", func(p Problem) {
			if p.Severity != Note {
				t.Error(p)
			}
		})
		must(t, err)
		if sum.Aside != 3 {
			t.Errorf("%+v", sum)
		}
	})
}

func TestWhatIsSetAsideIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, m, _ := troubled(t)
		for i := range uint32(maxAsideFiles + 5) {
			id := chunk.ID{File: 7, Index: i}
			prepared(t, s, id)
			must(t, s.Quarantine(id))
			must(t, s.Remove([]chunk.ID{id}))
			time.Sleep(time.Second)
		}
		all := setAsideNow(t, m)
		if len(all) != maxAsideFiles || all[0].ID.Index != 5 {
			t.Errorf("%d files, the oldest of chunk %s", len(all), all[0].ID)
		}
		// Of bytes: a file of a size that is far beyond what it takes here.
		if err := s.makeRoomAside(maxAsideBytes); err != nil {
			t.Error(err)
		}
		if all := setAsideNow(t, m); len(all) != 0 {
			t.Errorf("%d files beside one that needs all the room", len(all))
		}
		wantErr(t, s.makeRoomAside(maxAsideBytes+1), ErrNoSpace)
		must(t, s.Close())
	})
}

func TestNothingIsSetAsideOnAFullDiskOrOneThatFails(t *testing.T) {
	for name, prevent := range map[string]func(m *disk.Mem){
		"full":  func(m *disk.Mem) { m.Limit(1) },
		"fails": func(m *disk.Mem) { failing(m, disk.OpRename, "", disk.ErrIO) },
	} {
		t.Run(name, func(t *testing.T) {
			s, m, _ := troubled(t, idA)
			must(t, write(s, idA, access, 0, pattern(1, bs)))
			must(t, s.Quarantine(idA))
			prevent(m)
			must(t, s.Remove([]chunk.ID{idA}))
			m.Fails(nil)
			if all := setAsideNow(t, m); len(all) != 0 || s.lookup(idA) != nil {
				t.Errorf("set aside: %+v", all)
			}
			if _, err := m.Allocated("cs/" + layerName(idA, 1)); err == nil {
				t.Error("the file is still there")
			}
			must(t, s.Close())
		})
	}
}

func TestRemovalOfABadReplicaCutOffAtAnyStepEnds(t *testing.T) {
	for step, done := 1, false; !done; step++ {
		s, m, _ := troubled(t, idA)
		must(t, write(s, idA, access, 0, pattern(1, bs)))
		must(t, s.Quarantine(idA))
		m.Dies(step)
		done = s.Remove([]chunk.ID{idA}) == nil
		_ = s.Close()
		m.Restart(true)
		again := opened(t, m, "cs", Options{})
		if r, here := inventory(again)[idA]; here && r.State != Stale {
			t.Fatalf("step %d: %+v", step, r)
		}
		must(t, again.Remove([]chunk.ID{idA}))
		must(t, again.Close())
		_, err := Check(m, "cs", func(p Problem) {
			if p.Severity != Note {
				t.Errorf("step %d: %s", step, p)
			}
		})
		must(t, err)
	}
}

func TestDamageIsReportedAgainAfterARestart(t *testing.T) {
	s, m, _ := troubled(t, idA, idB)
	must(t, write(s, idA, access, 0, pattern(1, 2*bs)))
	must(t, s.Settle(7, 1, []ChunkVersion{{0, 1}}))
	flip(t, m, s.layerName(idA, 1), dataAt(1))
	verified(t, s, idA)
	must(t, s.Close())
	tr := &troubles{}
	s = opened(t, m, "cs", Options{OnTrouble: tr.add})
	wantBytes(t, s, idA, access, 0, pattern(1, bs)) // it may be the last copy
	must(t, s.Close())
	if tr.count() != 1 || tr.ids[0] != idA || !strings.HasPrefix(tr.seen[0], "corrupt") {
		t.Errorf("reported %v %q", tr.ids, tr.seen)
	}
}

func FuzzNamesOfWhatIsSetAside(f *testing.F) {
	f.Add("0000000000000007.00000001.00000004.20261121T140102Z")
	f.Add("0000000000000007.00000001.00000004.20261121T140102Z-2")
	f.Add("stray")
	f.Fuzz(func(t *testing.T, base string) {
		a, ok := parseAside(base)
		if !ok {
			return
		}
		day := a.When.Format(quarantineDate)
		if got := asideName(a.ID, a.Layer, day); !strings.HasPrefix(quarantineName+"/"+strings.ToLower(base), strings.ToLower(got)) {
			t.Errorf("%q was read as %q", base, got)
		}
	})
}
