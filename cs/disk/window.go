package disk

import (
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// window is a range of a file that is mapped. Small writes into it cost a copy instead of a system call, which for
// a few bytes costs as much as for a page. What was copied is in the page cache, as after pwrite: it survives the process, and Sync makes it durable.
type window struct {
	off int64
	mem []byte // nil: none
}

// Window tells that many small writes will go to a range, both ends multiples of the page size. It is a hint: where
// the range cannot be mapped, writes go on as before. Not at the same time as anything else on the file.
func (f *osFile) Window(off, length int64) {
	if f.window.mem != nil || off%int64(unix.Getpagesize()) != 0 || length <= 0 {
		return
	}
	mem, err := unix.Mmap(f.fd, off, int(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return
	}
	f.window = window{off: off, mem: mem}
}

// write copies p into the window; false where p is not all within it, or where the file system has refused the page (no space, an I/O error: SIGBUS).
// A write that got in part way is repeated by pwrite, which also tells why it cannot be.
func (w *window) write(p []byte, off int64) (done bool) {
	at := off - w.off
	if at < 0 || at+int64(len(p)) > int64(len(w.mem)) {
		return false
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			done = false
		}
	}()
	copy(w.mem[at:], p)
	return true
}

func (w *window) close() error {
	if w.mem == nil {
		return nil
	}
	mem := w.mem
	w.mem = nil
	return unix.Munmap(mem)
}
