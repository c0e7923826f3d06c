package disk

import (
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// smallRead is up to how many bytes ReadNow copies without telling the Go scheduler: the call does not wait and takes a
// few microseconds at most, less than telling costs.
const smallRead = 64 << 10

// osFile uses the file descriptor itself: package os would lock and unlock around each call, and cannot ask for
// RWF_NOWAIT. The store sees to it that no call is under way when it closes a file.
type osFile struct {
	fd     int
	name   string
	noNow  atomic.Bool // the file system does not know RWF_NOWAIT
	noHole atomic.Bool // nor holes
	window window
}

func (f *osFile) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		n, err := unix.Pread(f.fd, p[done:], off+int64(done))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return done, pathError("read", f.name, err)
		case n == 0:
			return done, io.EOF
		}
		done += n
	}
	return done, nil
}

func (f *osFile) ReadNow(p []byte, off int64) (int, error) {
	if f.noNow.Load() {
		return 0, ErrWouldBlock
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, errno := preadNow(f.fd, p, off)
	switch {
	case errno == unix.EOPNOTSUPP || errno == unix.ENOSYS || errno == unix.EINVAL:
		f.noNow.Store(true)
		return 0, ErrWouldBlock
	case errno == unix.EAGAIN || errno == unix.EINTR:
		return 0, ErrWouldBlock
	case errno != 0:
		return 0, pathError("read", f.name, errno)
	case n == 0:
		return 0, io.EOF
	case n < len(p):
		return n, ErrWouldBlock
	}
	return n, nil
}

// preadNow is preadv2 with RWF_NOWAIT, without the allocations of package unix.
func preadNow(fd int, p []byte, off int64) (int, syscall.Errno) {
	iov := unix.Iovec{Base: &p[0], Len: uint64(len(p))}
	var n uintptr
	var errno syscall.Errno
	if len(p) <= smallRead {
		n, _, errno = syscall.RawSyscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1,
			uintptr(off), 0, unix.RWF_NOWAIT)
	} else {
		n, _, errno = syscall.Syscall6(unix.SYS_PREADV2, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1,
			uintptr(off), 0, unix.RWF_NOWAIT)
	}
	runtime.KeepAlive(p)
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

// maxPiece is the most that is written by one call. A file system that keeps what is written in folios as large as the write (ext4) looks at
// every block of a folio at each later write of a single one.
const maxPiece = 128 << 10

func (f *osFile) WriteAt(p []byte, off int64) (int, error) {
	if f.window.write(p, off) {
		return len(p), nil
	}
	done := 0
	for done < len(p) {
		n, err := unix.Pwrite(f.fd, p[done:min(len(p), done+maxPiece)], off+int64(done))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return done, pathError("write", f.name, err)
		case n == 0:
			return done, pathError("write", f.name, io.ErrShortWrite)
		}
		done += n
	}
	return done, nil
}

func (f *osFile) Punch(off, length int64) error {
	if f.noHole.Load() {
		return nil
	}
	for {
		err := unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, length)
		switch err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EOPNOTSUPP, unix.ENOSYS:
			f.noHole.Store(true)
			return nil
		default:
			return pathError("punch", f.name, err)
		}
	}
}

func (f *osFile) Hole(off, length int64) (bool, error) {
	for {
		data, err := unix.Seek(f.fd, off, unix.SEEK_DATA)
		switch err {
		case nil:
			return data >= off+length, nil
		case unix.ENXIO: // nothing but holes up to the end
			return true, nil
		case unix.EINTR:
		case unix.EINVAL:
			return false, nil
		default:
			return false, pathError("seek", f.name, err)
		}
	}
}

func (f *osFile) Truncate(size int64) error {
	if err := unix.Ftruncate(f.fd, size); err != nil {
		return pathError("truncate", f.name, err)
	}
	return nil
}

func (f *osFile) Size() (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(f.fd, &st); err != nil {
		return 0, pathError("stat", f.name, err)
	}
	return st.Size, nil
}

// Sync is not repeated after an error: the kernel has forgotten what it failed to write (R8).
func (f *osFile) Sync() error {
	for {
		switch err := unix.Fdatasync(f.fd); err {
		case nil:
			return nil
		case unix.EINTR: // a signal came before the work began
		default:
			return pathError("sync", f.name, err)
		}
	}
}

func (f *osFile) Close() error {
	if err := errors.Join(f.window.close(), unix.Close(f.fd)); err != nil {
		return pathError("close", f.name, err)
	}
	return nil
}
