package meta

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/raftstore"
)

// Recover makes the metadata server in a folder the only one of its cluster, with the state that it has: the way back when a majority of the metadata
// servers is lost for good. Every entry of its log counts as committed; what only the others had is gone. The others must never run
// again: they are no members any more. The server must not run. Cut off anywhere, it can be done again.
func Recover(dir string) (err error) {
	id, err := readIdentity(dir)
	if err != nil {
		return err
	}
	if wasRemoved(dir) {
		return removedError(dir, id)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if err := recoverable(dir); err != nil {
		return fmt.Errorf("recover the metadata server in %s: %w", dir, err)
	}
	store, err := raftstore.Open(filepath.Join(dir, raftFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := recoverRaft(dir, id, store); err != nil {
		return fmt.Errorf("recover the metadata server in %s: %w", dir, err)
	}
	return nil
}

// recoverable makes sure that all of the folder can be read, and that its server is a member.
func recoverable(dir string) error {
	o, err := openOffline(dir)
	if err != nil {
		return err
	}
	defer o.close()
	if o.problem != "" {
		return fmt.Errorf("%s: %w", o.problem, fsm.ErrCorrupt)
	}
	return o.machine.View(func(v *fsm.View) error { _, err := v.Member(o.identity.Node); return err })
}

func recoverRaft(dir string, id *identity, store *raftstore.Store) (err error) {
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(filepath.Join(dir, snapshotDir), snapshotsKept, hclog.NewNullLogger())
	if err != nil {
		return err
	}
	created, err := fsm.New(filepath.Join(dir, machineFile))
	if err != nil {
		return err
	}
	machine := &releasing{Machine: created}
	defer func() { err = errors.Join(err, machine.Close()) }()
	address, transport := raft.NewInmemTransport(raft.ServerAddress(id.Address))
	alone := raft.Configuration{Servers: []raft.Server{{ID: serverID(id.Node), Address: address}}}
	config := raftConfig(serverID(id.Node), hclog.NewNullLogger())
	if err := raft.RecoverCluster(config, machine, store, store, snapshots, transport, alone); err != nil {
		return err
	}
	return forgetOthers(id, store, snapshots)
}

// releasing releases its snapshot when it is closed: RecoverCluster does not.
type releasing struct {
	*fsm.Machine
	snapshot raft.FSMSnapshot
}

func (r *releasing) Snapshot() (s raft.FSMSnapshot, err error) {
	r.snapshot, err = r.Machine.Snapshot()
	return r.snapshot, err
}

func (r *releasing) Close() error {
	if r.snapshot != nil {
		r.snapshot.Release()
	}
	return r.Machine.Close()
}

// forgetOthers adds an entry after all others: this server, when it leads, commits it.
func forgetOthers(id *identity, store *raftstore.Store, snapshots raft.SnapshotStore) error {
	list, err := snapshots.List()
	if err != nil {
		return err
	}
	if len(list) == 0 {
		return fmt.Errorf("no snapshot was made: %w", fsm.ErrCorrupt)
	}
	data, err := proto.Marshal(&fsmpb.Command{Command: &fsmpb.Command_Recovered{Recovered: &fsmpb.Recovered{Id: id.Node}}})
	if err != nil {
		return err
	}
	return store.StoreLog(&raft.Log{Index: list[0].Index + 1, Term: list[0].Term, Type: raft.LogCommand, Data: data})
}
