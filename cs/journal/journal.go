package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"
	"sync/atomic"

	"pstorage/cs/disk"
)

const (
	// minRing and maxRing bound a ring, in bytes: the largest request must fit in several times.
	minRing = 64 << 10
	maxRing = 1 << 42
	// fillStep is how much is written at once when a journal is made.
	fillStep = 1 << 20
)

// Options of an open journal.
type Options struct {
	// Full is called when half of the ring is in use, and whenever somebody waits for room. It must not block, nor use the journal.
	Full func()
	// Failed is told once why the journal takes nothing any more. It must not use the journal.
	Failed func(error)
}

// Stats of an open journal.
type Stats struct {
	Size, Used  int64  // bytes
	Records     uint64 // appended since it was opened
	Syncs       uint64
	Waits       uint64 // reservations that had to wait for room
	Checkpoints uint64
}

// Journal is an open one. All methods may be called from any goroutine once Begin has returned; before, only Replay may be.
type Journal struct {
	dir  string
	f    disk.File
	size uint64 // of the ring
	seed uint32
	opts Options

	syncing sync.Mutex
	header  header        // guarded by syncing
	durable atomic.Uint64 // records with lower numbers are on stable storage
	written atomic.Uint64 // records with lower numbers are in the file
	syncs   atomic.Uint64

	mu       sync.Mutex
	room     sync.Cond
	head     Position // of the next record
	tail     uint64   // where space begins that is in use
	reserved int64
	buf      []byte // the record being written
	err      error  // why nothing works any more
	records  uint64
	waits    uint64
	frees    uint64
}

// Create makes an empty journal in a folder, which it makes too, with a ring of size bytes. Its first run is run.
func Create(fsys disk.FS, dir string, id ID, size int64, run uint64) error {
	if size < minRing || size > maxRing || size%page != 0 {
		return fmt.Errorf("%w: %d bytes", ErrSize, size)
	}
	entries := newEntries(fsys, dir)
	if err := fsys.MkdirAll(dir); err != nil {
		return fmt.Errorf("write journal in %s: %w", dir, err)
	}
	name := path.Join(dir, FileName)
	f, err := fsys.Create(name)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: %w: choose another folder, or delete it if no chunk server uses it", name, fs.ErrExist)
	}
	if err == nil {
		h := header{id: id, size: uint64(size), generation: 1, start: Position{Seq: run << runShift}}
		err = errors.Join(fill(f, h), f.Close())
		if err != nil {
			err = errors.Join(err, fsys.Remove(name))
		}
	}
	for _, d := range entries {
		if err == nil {
			err = fsys.SyncDir(d)
		}
	}
	if err != nil {
		return fmt.Errorf("write journal in %s: %w", dir, err)
	}
	return nil
}

// newEntries returns the folders that have an entry more once something is made in dir.
func newEntries(fsys disk.FS, dir string) []string {
	changed := []string{dir}
	for {
		if _, err := fsys.List(dir); err == nil || dir == path.Dir(dir) {
			return changed
		}
		dir = path.Dir(dir)
		changed = append(changed, dir)
	}
}

// fill writes the whole file, so that later writes need no space and syncs no change of the file's extents.
func fill(f disk.File, h header) error {
	zeros := make([]byte, fillStep)
	for at, end := int64(0), ringOffset+int64(h.size); at < end; {
		n := min(fillStep, end-at)
		if _, err := f.WriteAt(zeros[:n], at); err != nil {
			return err
		}
		at += n
	}
	if _, err := f.WriteAt(h.encode(), h.slot()); err != nil {
		return err
	}
	return f.Sync()
}

// slot is where a header of its generation goes.
func (h header) slot() int64 { return int64(h.generation%2) * page }

// Remove deletes a journal, and its folder if nothing else is in it. One that is not there is no error.
func Remove(fsys disk.FS, dir string) error {
	err := fsys.Remove(path.Join(dir, FileName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("write journal in %s: %w", dir, err)
	}
	if names, err := fsys.List(dir); err == nil && len(names) == 0 && fsys.Remove(dir) == nil {
		return fsys.SyncDir(path.Dir(dir))
	}
	return fsys.SyncDir(dir)
}

// Open opens the journal of that id in a folder. run is the last one that its user knows of.
func Open(fsys disk.FS, dir string, id ID, run uint64, o Options) (*Journal, error) {
	f, err := fsys.Open(path.Join(dir, FileName))
	if err != nil {
		return nil, fmt.Errorf("write journal in %s: %w", dir, err)
	}
	j := &Journal{dir: dir, f: f, opts: o}
	j.room.L = &j.mu
	if err := j.open(id, run); err != nil {
		return nil, errors.Join(fmt.Errorf("write journal in %s: %w", dir, err), f.Close())
	}
	return j, nil
}

func (j *Journal) open(id ID, run uint64) error {
	h, err := readHeader(j.f)
	if err != nil {
		return err
	}
	// A crash may come after a run has begun and before the user has noted it.
	if have := h.start.Seq >> runShift; h.id != id || have != run && have != run+1 {
		return fmt.Errorf("%w: id %x, run %d; expected %x, %d", ErrForeign, h.id, have, id, run)
	}
	size, err := j.f.Size()
	if err != nil {
		return err
	}
	if size != ringOffset+int64(h.size) {
		return fmt.Errorf("%w: %d bytes, with a ring of %d", ErrFormat, size, h.size)
	}
	j.header, j.size, j.seed = h, h.size, id.seed()
	return nil
}

// readHeader returns the header that counts.
func readHeader(f disk.File) (best header, err error) {
	p := make([]byte, ringOffset)
	if _, err := f.ReadAt(p, 0); err != nil {
		return best, err
	}
	a, errA := decodeHeader(p[:page])
	b, errB := decodeHeader(p[page:])
	switch {
	case errA != nil && errB != nil:
		return best, errA
	case errA != nil || errB == nil && b.generation > a.generation:
		return b, nil
	}
	return a, nil
}

// Run is the number of the run under way.
func (j *Journal) Run() uint64 {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	return j.header.start.Seq >> runShift
}

// Begin starts a run: nothing that is in the ring counts any more. What Replay has shown must be durable elsewhere.
func (j *Journal) Begin() error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	run := j.header.start.Seq>>runShift + 1
	start := Position{Seq: run << runShift}
	if err := j.setStart(start); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.head, j.tail = start, start.Off
	j.written.Store(start.Seq)
	j.durable.Store(start.Seq)
	return nil
}

// setStart makes durable that records before are not needed any more. The caller holds syncing.
func (j *Journal) setStart(start Position) error {
	h := j.header
	h.generation++
	h.start = start
	if _, err := j.f.WriteAt(h.encode(), h.slot()); err != nil {
		return j.fail("header", err)
	}
	if err := j.f.Sync(); err != nil {
		return j.fail("sync", err)
	}
	j.header = h
	return nil
}

// fail ends the journal: those who wait for room hear of it.
func (j *Journal) fail(what string, cause error) error {
	err := fmt.Errorf("%w: %s in %s: %w", ErrIO, what, j.dir, cause)
	j.mu.Lock()
	first := j.err == nil
	if first {
		j.err = err
	}
	j.room.Broadcast()
	j.mu.Unlock()
	if first && j.opts.Failed != nil {
		j.opts.Failed(err)
	}
	return err
}

// Refuse ends the journal for a reason outside it.
func (j *Journal) Refuse(cause error) { _ = j.fail("given up", cause) }

// Err says why the journal takes nothing any more.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// Stats returns numbers.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Stats{Size: int64(j.size), Used: int64(j.head.Off - j.tail), Records: j.records, Syncs: j.syncs.Load(),
		Waits: j.waits, Checkpoints: j.frees}
}

// Close closes the file. Whoever waits for room gets ErrClosed.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.err == nil {
		j.err = ErrClosed
	}
	j.room.Broadcast()
	j.mu.Unlock()
	j.syncing.Lock() // a sync under way has the file open
	defer j.syncing.Unlock()
	return j.f.Close()
}
