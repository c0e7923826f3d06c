package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"testing"
)

// each runs a test on every implementation.
func each(t *testing.T, f func(t *testing.T, fsys FS, dir string)) {
	t.Run("os", func(t *testing.T) { f(t, OS{}, t.TempDir()+"/d") })
	t.Run("memory", func(t *testing.T) { f(t, NewMem(1), "d") })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func makeFile(t *testing.T, fsys FS, dir, name string, data []byte) File {
	t.Helper()
	must(t, fsys.MkdirAll(dir))
	f, err := fsys.Create(dir + "/" + name)
	must(t, err)
	n, err := f.WriteAt(data, 0)
	must(t, err)
	if n != len(data) {
		t.Fatalf("%d bytes written of %d", n, len(data))
	}
	return f
}

func content(t *testing.T, f File) []byte {
	t.Helper()
	size, err := f.Size()
	must(t, err)
	p := make([]byte, size)
	_, err = f.ReadAt(p, 0)
	must(t, err)
	return p
}

func TestFilesKeepWhatIsWritten(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		want := bytes.Repeat([]byte("abc"), 5000)
		f := makeFile(t, fsys, dir, "f", want)
		_, err := f.WriteAt([]byte("xyz"), 4095)
		must(t, err)
		copy(want[4095:], "xyz")
		must(t, f.Truncate(20000))
		want = append(want, make([]byte, 5000)...)
		must(t, f.Sync())
		must(t, f.Close())
		g, err := fsys.Open(dir + "/f")
		must(t, err)
		if !bytes.Equal(content(t, g), want) {
			t.Error("other bytes")
		}
		now := make([]byte, 100)
		if _, err := g.ReadNow(now, 4000); err != nil && !errors.Is(err, ErrWouldBlock) || err == nil && !bytes.Equal(now, want[4000:4100]) {
			t.Errorf("ReadNow: %v, %q", err, now)
		}
		if n, err := g.ReadAt(now, 19990); n != 10 || err != io.EOF {
			t.Errorf("read over the end: %d, %v", n, err)
		}
		must(t, g.Close())
	})
}

func TestPunchedRangeReadsAsZerosAndTakesNoSpace(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		want := bytes.Repeat([]byte{7}, 16*4096)
		f := makeFile(t, fsys, dir, "f", want)
		must(t, f.Sync())
		before, err := fsys.Allocated(dir + "/f")
		must(t, err)
		must(t, f.Punch(4096, 8*4096))
		clear(want[4096 : 9*4096])
		if !bytes.Equal(content(t, f), want) {
			t.Error("other bytes")
		}
		after, err := fsys.Allocated(dir + "/f")
		must(t, err)
		if before-after != 8*4096 {
			t.Errorf("%d bytes given back", before-after)
		}
		must(t, f.Close())
	})
}

func TestFoldersListWhatIsInThem(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		must(t, makeFile(t, fsys, dir, "b", nil).Close())
		must(t, fsys.MkdirAll(dir+"/a/deep"))
		names, err := fsys.List(dir)
		must(t, err)
		if fmt.Sprint(names) != "[a/ b]" {
			t.Errorf("list: %v", names)
		}
		_, err = fsys.Create(dir + "/b")
		if !errors.Is(err, fs.ErrExist) {
			t.Errorf("created twice: %v", err)
		}
		if err := fsys.Remove(dir + "/a"); err == nil {
			t.Error("a folder that is not empty was removed")
		}
		must(t, fsys.Remove(dir+"/b"))
		must(t, fsys.SyncDir(dir))
		for _, err := range []error{fsys.Remove(dir + "/b"), second(fsys.Open(dir + "/b")), second(fsys.List(dir + "/c"))} {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("of what is not there: %v", err)
			}
		}
		total, free, err := fsys.Space(dir)
		if err != nil || total < free || free == 0 {
			t.Errorf("space %d of %d, %v", free, total, err)
		}
	})
}

func second[T any](_ T, err error) error { return err }

// lives makes a file with synced and unsynced parts, ends the user's life, and returns what is left, over many seeds.
func lives(t *testing.T, power bool, visit func(synced, unsynced []byte, there bool)) {
	for seed := range uint64(200) {
		m := NewMem(seed)
		f := makeFile(t, m, "d", "f", bytes.Repeat([]byte{1}, 2*memPage))
		must(t, f.Sync())
		must(t, m.SyncDir("d"))
		must(t, m.SyncDir("."))
		_, err := f.WriteAt(bytes.Repeat([]byte{2}, memPage), memPage)
		must(t, err)
		must(t, makeFile(t, m, "d", "new", nil).Close())
		m.Restart(power)
		if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrDead) {
			t.Fatalf("a file of an earlier life: %v", err)
		}
		f, err = m.Open("d/f")
		must(t, err)
		got := content(t, f)
		_, err = m.Open("d/new")
		visit(got[:memPage], got[memPage:], err == nil)
	}
}

func TestPowerCutKeepsTheSyncedAndMayLoseOrTearTheRest(t *testing.T) {
	old, whole, torn, there, missing := 0, 0, 0, 0, 0
	lives(t, true, func(synced, unsynced []byte, new bool) {
		if !bytes.Equal(synced, bytes.Repeat([]byte{1}, memPage)) {
			t.Error("synced bytes were lost")
		}
		switch bytes.Count(unsynced, []byte{1}) {
		case memPage:
			old++
		case 0:
			whole++
		default:
			torn++
		}
		if new {
			there++
		} else {
			missing++
		}
	})
	if old == 0 || whole == 0 || torn == 0 || there == 0 || missing == 0 {
		t.Errorf("old %d, new %d, torn %d; unsynced name there %d, missing %d: each should occur", old, whole, torn, there, missing)
	}
}

func TestFileInAFolderThatWasNotSyncedMayBeLost(t *testing.T) {
	lost := 0
	for seed := range uint64(20) {
		m := NewMem(seed)
		f := makeFile(t, m, "a/b", "f", []byte("x"))
		must(t, f.Sync())
		must(t, m.SyncDir("a/b"))
		must(t, m.SyncDir("."))
		m.Restart(true) // of a, the entry of b was never synced
		if _, err := m.Open("a/b/f"); err != nil {
			lost++
		}
	}
	if lost == 0 || lost == 20 {
		t.Errorf("lost %d times of 20", lost)
	}
}

func TestKillLosesNothingWritten(t *testing.T) {
	lives(t, false, func(_, unsynced []byte, new bool) {
		if !new || !bytes.Equal(unsynced, bytes.Repeat([]byte{2}, memPage)) {
			t.Error("written bytes were lost")
		}
	})
}

func TestFailedSyncHasForgottenItsPages(t *testing.T) {
	m := NewMem(1)
	f := makeFile(t, m, "d", "f", []byte("old"))
	must(t, f.Sync())
	must(t, m.SyncDir("d"))
	must(t, m.SyncDir("."))
	_, err := f.WriteAt([]byte("new"), 0)
	must(t, err)
	m.Fails(func(s Step) error {
		if s.Op == OpSync {
			return ErrIO
		}
		return nil
	})
	if err := f.Sync(); !errors.Is(err, ErrIO) {
		t.Fatal(err)
	}
	m.Fails(nil)
	must(t, f.Sync()) // says that all is well
	m.Restart(true)
	f, err = m.Open("d/f")
	must(t, err)
	if got := content(t, f); string(got) != "old" {
		t.Errorf("after the power cut: %q", got)
	}
}

func TestFullMemoryDiskWritesWhatFits(t *testing.T) {
	m := NewMem(1)
	m.Limit(3 * memPage)
	f := makeFile(t, m, "d", "f", make([]byte, memPage))
	n, err := f.WriteAt(make([]byte, 4*memPage), memPage)
	if n != 2*memPage || !errors.Is(err, ErrNoSpace) {
		t.Errorf("%d bytes, %v", n, err)
	}
	must(t, f.Punch(0, memPage))
	_, err = f.WriteAt([]byte{1}, 3*memPage)
	must(t, err)
}

func TestLifeEndsInTheStepChosen(t *testing.T) {
	m := NewMem(1)
	f := makeFile(t, m, "d", "f", nil)
	m.Dies(2)
	_, err := f.WriteAt([]byte("one"), 0)
	must(t, err)
	if _, err := f.WriteAt([]byte("two"), 3); !errors.Is(err, ErrDead) {
		t.Fatal(err)
	}
	if err := m.Do(m.Life(), "db", func() { t.Error("committed after death") }); !errors.Is(err, ErrDead) {
		t.Fatal(err)
	}
	m.Restart(false)
	f, err = m.Open("d/f")
	must(t, err)
	if got := content(t, f); !bytes.HasPrefix([]byte("onetwo"), got) || len(got) < 3 {
		t.Errorf("left: %q", got)
	}
}

func TestRawReadsReturnWhatWasWrittenBefore(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		want := bytes.Repeat([]byte("0123456789abcdef"), 3*RawUnit/16)
		f := makeFile(t, fsys, dir, "f", want)
		defer f.Close()
		f.Window(0, RawUnit)
		raw, err := fsys.OpenRaw(dir + "/f")
		must(t, err)
		p := Buffer(4 * RawUnit)
		for i := range 3 { // nothing is synced: the disk gets it because it is asked for
			_, err := f.WriteAt([]byte{byte(i)}, int64(i)*RawUnit+7)
			must(t, err)
			want[i*RawUnit+7] = byte(i)
			n, err := raw.ReadAt(p[:3*RawUnit], 0)
			must(t, err)
			if !bytes.Equal(p[:n], want) {
				t.Fatal("a raw read returned other bytes than were written")
			}
		}
		if n, err := raw.ReadAt(p, 0); err != io.EOF || n != 3*RawUnit {
			t.Errorf("beyond the end: %d bytes, %v", n, err)
		}
		if size, err := raw.Size(); err != nil || size != 3*RawUnit {
			t.Errorf("size %d, %v", size, err)
		}
		must(t, raw.Close())
		_, err = fsys.OpenRaw(dir + "/none")
		if !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a file that is not there: %v", err)
		}
	})
}

func TestRenamedFileIsFoundUnderItsNewName(t *testing.T) {
	each(t, func(t *testing.T, fsys FS, dir string) {
		must(t, makeFile(t, fsys, dir, "f", []byte("new")).Close())
		must(t, makeFile(t, fsys, dir+"/other", "g", []byte("old")).Close())
		must(t, fsys.Rename(dir+"/f", dir+"/other/g"))
		g, err := fsys.Open(dir + "/other/g")
		must(t, err)
		defer g.Close()
		if got := content(t, g); string(got) != "new" {
			t.Errorf("it has %q", got)
		}
		if err := fsys.Rename(dir+"/f", dir+"/h"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a file that is not there was renamed: %v", err)
		}
	})
}

func TestHolesAreToldFromData(t *testing.T) {
	const page = 4096
	each(t, func(t *testing.T, fsys FS, dir string) {
		f := makeFile(t, fsys, dir, "f", nil)
		must(t, f.Truncate(16*page))
		_, err := f.WriteAt(make([]byte, page), 4*page)
		must(t, err)
		want := func(off, length int64, want bool) {
			t.Helper()
			if got, err := f.Hole(off, length); err != nil || got != want {
				t.Errorf("%d+%d: a hole: %v %v", off/page, length/page, got, err)
			}
		}
		want(0, 4*page, true)
		want(4*page, page, false)
		want(3*page, 2*page, false)
		want(5*page, 11*page, true)
		must(t, f.Punch(4*page, page))
		want(0, 16*page, true)
		must(t, f.Close())
	})
}
