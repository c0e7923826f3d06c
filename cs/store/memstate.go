package store

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sync"

	"pstorage/cs/disk"
)

// memState is the database of a store on a disk in memory: a commit is one step of that disk, and durable.
type memState struct {
	disk *disk.Mem
	life int // whoever opened it is dead in any other
	name string
	kv   *memKV
}

type memKV struct {
	mu     sync.Mutex
	exists bool
	values map[string][]byte
}

func openMemState(d *disk.Mem, dir string, create bool) (StateDB, error) {
	name := dir + "/" + stateName
	kv := d.Stable(name, func() any { return &memKV{values: map[string][]byte{}} }).(*memKV)
	kv.mu.Lock()
	defer kv.mu.Unlock()
	switch {
	case create && kv.exists:
		return nil, fmt.Errorf("%s: %w", name, fs.ErrExist)
	case !create && !kv.exists:
		return nil, fmt.Errorf("%w: %s: %w", ErrFormat, name, fs.ErrNotExist)
	}
	return &memState{disk: d, life: d.Life(), name: name, kv: kv}, nil
}

// replaceMemState is replaceState.
func replaceMemState(d *disk.Mem, dir string, entries []Change) error {
	name := dir + "/" + stateName
	kv := d.Stable(name, func() any { return &memKV{values: map[string][]byte{}} }).(*memKV)
	kv.mu.Lock()
	defer kv.mu.Unlock()
	return d.Do(d.Life(), name, func() {
		kv.exists, kv.values = true, map[string][]byte{}
		for _, e := range entries {
			kv.values[string(e.Key)] = slices.Clone(e.Value)
		}
	})
}

func (m *memState) Load(visit func(key, value []byte) error) error {
	m.kv.mu.Lock()
	defer m.kv.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(m.kv.values)) {
		if err := visit([]byte(k), m.kv.values[k]); err != nil {
			return err
		}
	}
	return nil
}

func (m *memState) Commit(changes []Change) error {
	m.kv.mu.Lock()
	defer m.kv.mu.Unlock()
	return m.disk.Do(m.life, m.name, func() {
		m.kv.exists = true
		for _, c := range changes {
			if c.Value == nil {
				delete(m.kv.values, string(c.Key))
			} else {
				m.kv.values[string(c.Key)] = slices.Clone(c.Value)
			}
		}
	})
}

func (m *memState) Close() error { return nil }
