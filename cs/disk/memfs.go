package disk

import (
	"fmt"
	"io/fs"
	"path"
	"sort"
	"strings"
)

var _ FS = (*Mem)(nil)

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	part, err := m.step(Step{Op: OpCreate, Name: name})
	if err != nil && !part {
		return nil, err
	}
	if _, e := m.lookup(path.Dir(clean(name)), true); e != nil {
		return nil, e
	}
	if m.nodes[clean(name)] != nil {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	n := newNode(false)
	m.nodes[clean(name)] = n
	return &memFile{m: m, n: n, name: name, life: m.life}, err
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.step(Step{Op: OpOpen, Name: name}); err != nil {
		return nil, err
	}
	n, err := m.lookup(name, false)
	if err != nil {
		return nil, err
	}
	return &memFile{m: m, n: n, name: name, life: m.life}, nil
}

// OpenRaw implements FS.
func (m *Mem) OpenRaw(name string) (Raw, error) { return m.Open(name) }

// Rename implements FS. A power cut before both folders were synced may leave either name, both, or none.
func (m *Mem) Rename(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.step(Step{Op: OpRename, Name: from}); err != nil {
		return err
	}
	n, err := m.lookup(from, false)
	if err != nil {
		return err
	}
	if _, err := m.lookup(path.Dir(clean(to)), true); err != nil {
		return err
	}
	delete(m.nodes, clean(from))
	m.nodes[clean(to)] = n
	m.recount()
	return nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.step(Step{Op: OpRemove, Name: name}); err != nil {
		return err
	}
	n := m.nodes[clean(name)]
	if n == nil {
		return &fs.PathError{Op: "remove", Path: name, Err: fs.ErrNotExist}
	}
	if n.dir && len(m.children(name)) > 0 {
		return fmt.Errorf("%w: folder %s is not empty", ErrIO, name)
	}
	delete(m.nodes, clean(name))
	m.recount()
	return nil
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := m.nodes[clean(name)]; n != nil && n.dir {
		return nil
	}
	if _, err := m.step(Step{Op: OpMkdir, Name: name}); err != nil {
		return err
	}
	for d := clean(name); m.nodes[d] == nil; d = path.Dir(d) {
		m.nodes[d] = newNode(true)
	}
	return nil
}

// List implements FS.
func (m *Mem) List(name string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return nil, ErrDead
	}
	if _, err := m.lookup(name, true); err != nil {
		return nil, err
	}
	return m.children(name), nil
}

func (m *Mem) children(name string) []string {
	var names []string
	for p, n := range m.nodes {
		if p == "." || path.Dir(p) != clean(name) {
			continue
		}
		base := path.Base(p)
		if n.dir {
			base += "/"
		}
		names = append(names, base)
	}
	sort.Strings(names)
	return names
}

// SyncDir implements FS. The folder itself must be in a durable folder to survive, as on a real file system.
func (m *Mem) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, err := m.step(Step{Op: OpSyncDir, Name: name}); err != nil {
		return err
	}
	dir := clean(name)
	if _, err := m.lookup(name, true); err != nil {
		return err
	}
	for p := range m.durable {
		if p != "." && path.Dir(p) == dir && m.nodes[p] == nil {
			m.forget(p)
		}
	}
	for p, n := range m.nodes {
		if p != "." && path.Dir(p) == dir {
			m.durable[p] = n
		}
	}
	return nil
}

func (m *Mem) forget(name string) {
	for p := range m.durable {
		if p == name || strings.HasPrefix(p, name+"/") {
			delete(m.durable, p)
		}
	}
}

// Allocated implements FS.
func (m *Mem) Allocated(name string) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return 0, ErrDead
	}
	n, err := m.lookup(name, false)
	if err != nil {
		return 0, err
	}
	return int64(len(n.pages)) * memPage, nil
}

// memSpace is the size of a Mem without a limit.
const memSpace = 1 << 40

// Space implements FS.
func (m *Mem) Space(string) (total, free uint64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return 0, 0, ErrDead
	}
	limit := m.capacity
	if limit == 0 {
		limit = memSpace
	}
	return uint64(limit), uint64(max(0, limit-m.used)), nil
}

// Boot implements FS.
func (m *Mem) Boot() (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return fmt.Sprintf("boot-%d", m.boot), nil
}
