package disk

import (
	"io"
	"runtime"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// I/O priorities of Linux, as ioprio_set takes them: the class above the level.
const (
	ioprioWhoProcess = 1 // who: 0 is the calling thread
	ioprioDefault    = 0
	ioprioLowest     = 2<<13 | 7 // best effort, last: the idle class would wait for ever on a busy disk
)

// osRaw reads past the page cache (O_DIRECT): the kernel first writes out what it has of the range that is newer, and keeps nothing of what
// is read, so that readers find in memory what they found there before. File systems without direct I/O are told to forget the range
// before each read instead. Reads have the lowest priority that is served at all.
type osRaw struct {
	osFile
	cached atomic.Bool // the file system does not do direct reads
}

// OpenRaw implements FS.
func (OS) OpenRaw(name string) (Raw, error) {
	f, err := openRaw(name, unix.O_RDONLY|unix.O_DIRECT)
	if err != unix.EINVAL {
		return f.orError(name, err)
	}
	f, err = openRaw(name, unix.O_RDONLY)
	if err == nil {
		f.cached.Store(true)
	}
	return f.orError(name, err)
}

func (f *osRaw) orError(name string, err error) (Raw, error) {
	if err != nil {
		return nil, pathError("open", name, err)
	}
	return f, nil
}

// openRaw returns the bare error of the system call.
func openRaw(name string, flags int) (*osRaw, error) {
	for {
		fd, err := unix.Open(name, flags|unix.O_CLOEXEC|unix.O_NOATIME, 0)
		if err == unix.EPERM {
			fd, err = unix.Open(name, flags|unix.O_CLOEXEC, 0)
		}
		switch err {
		case nil:
			return &osRaw{osFile: osFile{fd: fd, name: name}}, nil
		case unix.EINTR:
		default:
			return nil, err
		}
	}
}

func (f *osRaw) ReadAt(p []byte, off int64) (int, error) {
	runtime.LockOSThread() // a thread has the priority
	defer runtime.UnlockOSThread()
	ioprio(ioprioLowest)
	defer ioprio(ioprioDefault)
	for done := 0; done < len(p); {
		if f.cached.Load() {
			_ = unix.Fadvise(f.fd, off, int64(len(p)), unix.FADV_DONTNEED)
		}
		n, err := unix.Pread(f.fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EINVAL && !f.cached.Load(): // not in units of this device
			if err := f.buffered(); err != nil {
				return done, err
			}
			continue
		case err != nil:
			return done, pathError("read", f.name, err)
		case n == 0:
			return done, io.EOF
		}
		done += n
	}
	return len(p), nil
}

// buffered gives up direct reads.
func (f *osRaw) buffered() error {
	if _, err := unix.FcntlInt(uintptr(f.fd), unix.F_SETFL, 0); err != nil {
		return pathError("fcntl", f.name, err)
	}
	f.cached.Store(true)
	return nil
}

// ioprio sets the calling thread's I/O priority. Where that is not allowed, reads are as important as others.
func ioprio(priority uintptr) {
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, priority)
}
