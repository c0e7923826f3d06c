package meta

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"pstorage/meta/fsm"
	"pstorage/meta/raftstore"
)

// offline is what a folder holds, read without a server and without a write into the folder: from a copy, which may have been taken, or is being
// taken, while a server runs there.
type offline struct {
	identity *identity
	removed  bool
	machine  *fsm.Machine
	store    *raftstore.Store
	snapshot *raft.SnapshotMeta // nil: none
	last     raft.Log           // the last entry that could be read
	servers  []raft.Server
	problem  string // where reading stopped before the end, and why
	scratch  string
}

// readTries is how often a folder is read in which a server may be writing.
const readTries = 3

// openOffline reads a folder's state. Every entry of the log is applied: which of the last ones were committed only the others know.
func openOffline(dir string) (o *offline, err error) {
	for try := 1; ; try++ {
		o, err = readOnce(dir)
		if err == nil && o.problem == "" || try == readTries || !inUse(dir) {
			return o, err
		}
		if err == nil {
			o.close()
		}
	}
}

// inUse tells whether a server runs in the folder.
func inUse(dir string) bool {
	f, err := os.Open(filepath.Join(dir, lockFile))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

func readOnce(dir string) (o *offline, err error) {
	o = &offline{removed: wasRemoved(dir)}
	if o.identity, err = readIdentity(dir); err != nil {
		return nil, err
	}
	if o.scratch, err = os.MkdirTemp("", "pstorage-mds-"); err != nil {
		return nil, err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // a database that was cut off is mapped beyond its end
	defer func() {
		if r := recover(); r != nil { // the database's answer to pages that make no sense
			err = fmt.Errorf("%s: %v: %w", filepath.Join(dir, raftFile), r, raftstore.ErrCorrupt)
		}
		if err != nil {
			o.close()
			o = nil
		}
	}()
	for _, step := range []func(string) error{o.copyLog, o.copySnapshots, o.restore} {
		if err := step(dir); err != nil {
			return o, err
		}
	}
	return o, o.replay()
}

func (o *offline) close() {
	if o.machine != nil {
		_ = o.machine.Close()
	}
	if o.store != nil {
		_ = o.store.Close()
	}
	_ = os.RemoveAll(o.scratch)
}

func (o *offline) copyLog(dir string) (err error) {
	to := filepath.Join(o.scratch, raftFile)
	if err := copyFile(filepath.Join(dir, raftFile), to); err != nil {
		return err
	}
	o.store, err = raftstore.Open(to)
	return err
}

// copySnapshots copies those that are complete; one that the server removes meanwhile is left out.
func (o *offline) copySnapshots(dir string) error {
	from, to := filepath.Join(dir, snapshotDir, snapshotDir), filepath.Join(o.scratch, snapshotDir, snapshotDir)
	entries, err := os.ReadDir(from)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if !e.IsDir() || strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		if err := os.MkdirAll(filepath.Join(to, e.Name()), 0o700); err != nil {
			return err
		}
		for _, name := range []string{"meta.json", "state.bin"} {
			err := copyFile(filepath.Join(from, e.Name(), name), filepath.Join(to, e.Name(), name))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// restore takes the newest snapshot that can be read.
func (o *offline) restore(dir string) (err error) {
	if o.machine, err = fsm.New(filepath.Join(o.scratch, machineFile)); err != nil {
		return err
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(filepath.Join(o.scratch, snapshotDir), snapshotsKept, hclog.NewNullLogger())
	if err != nil {
		return err
	}
	list, err := snapshots.List()
	if err != nil {
		return err
	}
	for _, meta := range list {
		_, from, err := snapshots.Open(meta.ID)
		if err == nil {
			err = o.machine.Restore(from)
		}
		if err != nil {
			o.problem = fmt.Sprintf("snapshot %s cannot be read: %v", meta.ID, err)
			continue
		}
		o.snapshot, o.servers = meta, meta.Configuration.Servers
		o.last.Index, o.last.Term = meta.Index, meta.Term
		return nil
	}
	if len(list) > 0 {
		return fmt.Errorf("%s: none of %d snapshots can be read: %s: %w", dir, len(list), o.problem, fsm.ErrCorrupt)
	}
	return nil
}

// replay applies the entries after the snapshot, as far as they can be read.
func (o *offline) replay() error {
	first, err := o.store.FirstIndex()
	if err != nil {
		return err
	}
	last, err := o.store.LastIndex()
	if err != nil {
		return err
	}
	if first > o.last.Index+1 {
		return fmt.Errorf("the log begins at entry %d, the state ends at %d: %w", first, o.last.Index, raftstore.ErrCorrupt)
	}
	for i := o.last.Index + 1; i <= last; i++ {
		var l raft.Log
		if err := o.store.GetLog(i, &l); err != nil {
			o.problem = fmt.Sprintf("entries from %d to %d cannot be read: %v", i, last, err)
			return nil
		}
		if l.Type == raft.LogConfiguration {
			o.servers = raft.DecodeConfiguration(l.Data).Servers
		}
		if err, ok := o.machine.Apply(&l).(error); ok && errors.Is(err, fsm.ErrBroken) {
			return err
		}
		o.last = l
	}
	return nil
}
