package disk

import (
	"bytes"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// windowed is a file of the operating system of 12 KiB whose middle 4 KiB are a window.
func windowed(t *testing.T) *osFile {
	t.Helper()
	f, err := OS{}.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(12 << 10); err != nil {
		t.Fatal(err)
	}
	f.Window(4<<10, 4<<10)
	of := f.(*osFile)
	if of.window.mem == nil {
		t.Fatal("the range was not mapped")
	}
	return of
}

func TestWhatIsWrittenThroughAWindowIsInTheFile(t *testing.T) {
	f := windowed(t)
	for _, off := range []int64{0, 4<<10 - 2, 4 << 10, 6 << 10, 8<<10 - 4, 8<<10 - 2, 8 << 10} {
		want := []byte{1, 2, 3, byte(off >> 8)}
		if n, err := f.WriteAt(want, off); n != len(want) || err != nil {
			t.Fatalf("write at %d: %d, %v", off, n, err)
		}
		got := make([]byte, len(want))
		if _, err := f.ReadAt(got, off); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("read at %d: %v, %v, want %v", off, got, err, want)
		}
	}
}

// The kernel answers a write into a page that the file cannot back with SIGBUS, as it does when the disk is full or broken.
func TestAWriteThroughAWindowThatTheKernelRefusesIsAnErrorOrAnOrdinaryWrite(t *testing.T) {
	f := windowed(t)
	if err := unix.Ftruncate(f.fd, 4<<10); err != nil {
		t.Fatal(err)
	}
	want := []byte{1, 2, 3, 4}
	if f.window.write(want, 4<<10) {
		t.Fatal("a page beyond the end took a write")
	}
	if n, err := f.WriteAt(want, 4<<10); n != 4 || err != nil {
		t.Fatalf("ordinary write: %d, %v", n, err)
	}
	got := make([]byte, 4)
	if _, err := f.ReadAt(got, 4<<10); err != nil || !bytes.Equal(got, want) {
		t.Fatalf("read: %v, %v", got, err)
	}
}

func TestAClosedFileHasNoWindow(t *testing.T) {
	f := windowed(t)
	g, err := OS{}.Open(f.name)
	if err != nil {
		t.Fatal(err)
	}
	g.Window(4<<10, 4<<10)
	if err := g.Close(); err != nil || g.(*osFile).window.mem != nil {
		t.Fatalf("close: %v, window %d bytes", err, len(g.(*osFile).window.mem))
	}
}
