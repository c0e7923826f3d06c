package store

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// smallDisk is a folder on a disk of its own that others can fill.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("mounting a small disk needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func fillDisk(t *testing.T, dir string) (ballast string) {
	t.Helper()
	ballast = filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 64<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	return ballast
}

// put commits new entries until one fails.
func put(db StateDB, first, count uint64) error {
	for i := range count {
		if err := db.Commit([]Change{{Key: epochKey(first + i), Value: encodeUint64(i)}}); err != nil {
			return err
		}
	}
	return nil
}

func TestTheDatabaseGoesOnOnAFullDisk(t *testing.T) {
	const batch = 2000
	dir := smallDisk(t, "32m")
	db, err := openBolt(filepath.Join(dir, stateName), true)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for round := range uint64(3) {
		if err := put(db, 2*round*batch, batch); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(filepath.Join(dir, spareName)); err != nil || info.Size() != spareSize {
			t.Fatalf("round %d: no room is kept: %v", round, err)
		}
		ballast := fillDisk(t, dir)
		if err := put(db, (2*round+1)*batch, batch); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
	}
	next := uint64(0)
	err = db.Load(func(key, _ []byte) error {
		if at := binary.BigEndian.Uint64(key[1:]); at != next {
			t.Fatalf("entry %d where %d should be", at, next)
		}
		next++
		return nil
	})
	if err != nil || next != 6*batch {
		t.Errorf("%d entries: %v", next, err)
	}
}

// Without the spare room, the same fails: the test above shows something.
func TestTheDatabaseNeedsItsSpareRoom(t *testing.T) {
	dir := smallDisk(t, "32m")
	db, err := openBolt(filepath.Join(dir, stateName), true)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := os.Remove(filepath.Join(dir, spareName)); err != nil {
		t.Fatal(err)
	}
	ballast := fillDisk(t, dir)
	if err := put(db, 0, 2000); !noRoom(err) {
		t.Errorf("on a full disk: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := put(db, 0, 2000); err != nil {
		t.Errorf("with room again: %v", err)
	}
}
