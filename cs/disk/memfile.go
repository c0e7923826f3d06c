package disk

import (
	"io"
	"io/fs"
)

type memFile struct {
	m      *Mem
	n      *memNode
	name   string
	life   int
	closed bool
}

// begin checks that the file can be used and counts the step.
func (f *memFile) begin(op Op, off, length int64) (inPart bool, err error) {
	if f.closed {
		return false, fs.ErrClosed
	}
	if f.life != f.m.life {
		return false, ErrDead
	}
	return f.m.step(Step{Op: op, Name: f.name, Off: off, Length: length})
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if _, err := f.begin(OpRead, off, int64(len(p))); err != nil {
		return 0, err
	}
	if off >= f.n.size {
		return 0, io.EOF
	}
	want := len(p)
	p = p[:min(int64(want), f.n.size-off)]
	f.n.read(p, off)
	if len(p) < want {
		return len(p), io.EOF
	}
	return want, nil
}

func (n *memNode) read(p []byte, off int64) {
	for len(p) > 0 {
		at := off % memPage
		part := p[:min(int64(len(p)), memPage-at)]
		if d := n.pages[off/memPage]; d != nil {
			copy(part, d[at:])
		} else {
			clear(part)
		}
		p, off = p[len(part):], off+int64(len(part))
	}
}

func (f *memFile) ReadNow(p []byte, off int64) (int, error) { return f.ReadAt(p, off) }

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	part, err := f.begin(OpWrite, off, int64(len(p)))
	if err != nil && !part {
		return 0, err
	}
	if part { // the process was killed in it
		n := f.m.rnd.IntN(len(p) + 1)
		p = p[:max(0, n-int((off+int64(n))%memWord))]
	}
	done, e := f.write(p, off)
	if err == nil {
		err = e
	}
	return done, err
}

func (f *memFile) write(p []byte, off int64) (int, error) {
	done := 0
	for len(p) > 0 {
		page, at := off/memPage, off%memPage
		part := p[:min(int64(len(p)), memPage-at)]
		d, err := f.own(page)
		if err != nil {
			return done, err
		}
		copy(d[at:], part)
		p, off, done = p[len(part):], off+int64(len(part)), done+len(part)
		f.n.size = max(f.n.size, off)
	}
	return done, nil
}

// own returns a page to write to, apart from its durable version.
func (f *memFile) own(page int64) (*memData, error) {
	d := f.n.pages[page]
	switch {
	case d == nil:
		if f.m.capacity != 0 && f.m.used+memPage > f.m.capacity {
			return nil, ErrNoSpace
		}
		f.m.used += memPage
		d = &memData{}
	case d == f.n.durable[page]:
		other := *d
		d = &other
	}
	f.n.pages[page] = d
	f.n.dirty[page] = true
	return d, nil
}

// Window implements File; writes here are all alike.
func (f *memFile) Window(int64, int64) {}

func (f *memFile) Punch(off, length int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if _, err := f.begin(OpPunch, off, length); err != nil {
		return err
	}
	for length > 0 {
		page, at := off/memPage, off%memPage
		n := min(length, memPage-at)
		f.punch(page, at, n)
		off, length = off+n, length-n
	}
	return nil
}

// Hole implements File. It is no step: nothing on the disk depends on it.
func (f *memFile) Hole(off, length int64) (bool, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	for page := off / memPage; page*memPage < off+length; page++ {
		if f.n.pages[page] != nil {
			return false, nil
		}
	}
	return true, nil
}

func (f *memFile) punch(page, at, n int64) {
	switch {
	case f.n.pages[page] == nil:
	case n == memPage:
		delete(f.n.pages, page)
		f.n.dirty[page] = true
		f.m.used -= memPage
	default:
		d, _ := f.own(page) // it exists, so there is space
		clear(d[at : at+n])
	}
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if _, err := f.begin(OpTruncate, size, 0); err != nil {
		return err
	}
	for p := range f.n.pages {
		if p*memPage >= size {
			f.punch(p, 0, memPage)
		} else if end := size - p*memPage; end < memPage {
			f.punch(p, end, memPage-end)
		}
	}
	f.n.size = size
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if f.life != f.m.life {
		return 0, ErrDead
	}
	return f.n.size, nil
}

func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	part, err := f.begin(OpSync, 0, 0)
	switch {
	case part || f.closed || f.m.dead || f.life != f.m.life: // nothing was synced, as far as anyone was told
	case err != nil:
		f.n.dirty = map[int64]bool{} // forgotten, not durable
	default:
		for p := range f.n.dirty {
			f.n.setDurable(p, f.n.pages[p])
		}
		f.n.dirty = map[int64]bool{}
		f.n.durSize = f.n.size
	}
	return err
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	f.closed = true
	return nil
}
