package fsm

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/rules"
)

// mapBytes of address space are reserved for the database at first (no memory is used by that): when it outgrows them, writing waits for
// all readers, a snapshot being streamed out among them.
const mapBytes int64 = 16 << 30

// Names of buckets and fixed keys; part of the format.
var (
	clusterBucket  = []byte("cluster")
	configBucket   = []byte("config")
	serversBucket  = []byte("servers")
	membersBucket  = []byte("members")
	nodesBucket    = []byte("nodes")
	namesBucket    = []byte("names")
	chunksBucket   = []byte("chunks")
	countsBucket   = []byte("counts")
	replicasBucket = []byte("replicas")
	garbageBucket  = []byte("garbage")
	watchBucket    = []byte("watch")

	targetsBucket      = []byte("targets")
	accountsBucket     = []byte("accounts")
	reservationsBucket = []byte("reservations")
	snapshotsBucket    = []byte("snapshots")
	layersBucket       = []byte("layers")
	overBucket         = []byte("over")
	formersBucket      = []byte("formers")
	exportsBucket      = []byte("exports")

	allBuckets = slices.Concat([][]byte{clusterBucket, configBucket, serversBucket, membersBucket, nodesBucket, namesBucket,
		chunksBucket, countsBucket, replicasBucket, garbageBucket, watchBucket}, laterBuckets)
	// laterBuckets are not in snapshots of clusters made before there were targets, snapshots of files, clones, or exports.
	laterBuckets = [][]byte{targetsBucket, accountsBucket, reservationsBucket, snapshotsBucket, layersBucket, overBucket, formersBucket,
		exportsBucket}

	versionKey    = []byte("version")
	appliedKey    = []byte("applied")
	lastNodeKey   = []byte("last-node")
	lastServerKey = []byte("last-server")
	lastMemberKey = []byte("last-member")
	recoveredKey  = []byte("recovered")
	nameKey       = []byte("name")
	idKey         = []byte("id")
	passwordKey   = []byte("password")
	lastTargetKey = []byte("last-target")
	levelKey      = []byte("level")
	keyKey        = []byte("key")
)

// Machine is the state machine. Apply, ApplyBatch, Snapshot and Restore are Raft's to call.
type Machine struct {
	path   string
	knows  uint64                // Level, but for tests
	broken atomic.Pointer[error] // why, if it is
	left   rules.Set

	mu sync.RWMutex
	db *bolt.DB
}

// New makes an empty machine with its database at the path; what was there is removed.
func New(path string) (*Machine, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("metadata database: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("metadata database: %w", err)
	}
	db, err := openDatabase(path)
	if err != nil {
		return nil, err
	}
	if err := db.Update(format); err != nil {
		return nil, errors.Join(fmt.Errorf("metadata database %s: %w", path, err), db.Close())
	}
	return &Machine{path: path, db: db, knows: Level}, nil
}

func openDatabase(path string) (*bolt.DB, error) {
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		NoSync:          true,
		NoFreelistSync:  true,
		FreelistType:    bolt.FreelistMapType,
		InitialMmapSize: int(min(mapBytes, math.MaxInt)),
	})
	if err != nil {
		return nil, fmt.Errorf("open metadata database %s: %w", path, err)
	}
	return db, nil
}

// format makes the buckets and the root directory.
func format(btx *bolt.Tx) error {
	for _, name := range allBuckets {
		if _, err := btx.CreateBucket(name); err != nil {
			return err
		}
	}
	tx := open(btx)
	tx.put(tx.cluster, versionKey, nodeKey(FormatVersion))
	tx.put(tx.cluster, appliedKey, nodeKey(0))
	tx.put(tx.cluster, lastNodeKey, nodeKey(firstNode-1))
	tx.put(tx.cluster, lastServerKey, nodeKey(firstServer-1))
	tx.putNode(Root, &fsmpb.Node{Directory: true})
	return tx.err
}

// Close closes the database. Nothing may be applied or read afterwards.
func (m *Machine) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.db.Close()
}

// Broken returns why nothing more can be applied: the database has failed, or the log is of a newer version; nil if it can.
func (m *Machine) Broken() error {
	if why := m.broken.Load(); why != nil {
		return *why
	}
	return nil
}

func (m *Machine) breakDown(why error) error {
	why = fmt.Errorf("%w: %w", ErrBroken, why)
	m.broken.Store(&why)
	return why
}

// View calls read with the state after some entry. What it gets is valid only until it returns.
func (m *Machine) View(read func(*View) error) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.db.View(func(btx *bolt.Tx) error {
		v := &View{open(btx)}
		if err := read(v); err != nil {
			return err
		}
		return v.err
	})
}

// LeaveOut leaves rules out, for a test of the whole system: on all its metadata servers alike.
func (m *Machine) LeaveOut(left rules.Set) { m.left = left }

// Know makes it one that knows another level than this version, for a test of upgrades.
func (m *Machine) Know(level uint64) { m.knows = level }

// Apply applies one entry.
func (m *Machine) Apply(l *raft.Log) any { return m.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch applies entries in one transaction. Each response is the command's result (results.go), or an error.
func (m *Machine) ApplyBatch(logs []*raft.Log) []any {
	responses := make([]any, len(logs))
	m.mu.RLock()
	defer m.mu.RUnlock()
	why := m.Broken()
	if why == nil {
		err := m.db.Update(func(btx *bolt.Tx) error { return open(btx).without(m.left).applyAll(logs, responses, m.knows) })
		if err != nil {
			why = m.breakDown(err)
		}
	}
	for i := range responses {
		if why != nil {
			responses[i] = why
		}
	}
	return responses
}

func (tx *txn) applyAll(logs []*raft.Log, responses []any, knows uint64) error {
	applied := number(tx.cluster.Get(appliedKey))
	for i, l := range logs {
		if l.Index <= applied {
			return fmt.Errorf("entry %d comes after entry %d: %w", l.Index, applied, ErrCorrupt)
		}
		applied = l.Index
		if l.Type != raft.LogCommand {
			continue
		}
		response, err := tx.apply(l)
		if tx.err != nil {
			return fmt.Errorf("entry %d: %w", l.Index, tx.err)
		}
		if responses[i] = response; err != nil {
			responses[i] = err
		}
	}
	tx.storeCounts()
	tx.storeBlocks()
	tx.put(tx.cluster, appliedKey, nodeKey(applied))
	return errors.Join(tx.err, tx.checkKnown(knows))
}

func (tx *txn) apply(l *raft.Log) (any, error) {
	var c fsmpb.Command
	if err := proto.Unmarshal(l.Data, &c); err != nil || c.Command == nil || !known(c.ProtoReflect()) {
		tx.err = errors.Join(ErrNewer, err)
		return nil, tx.err
	}
	if err := tx.checkLevel(&c); err != nil {
		return nil, err
	}
	if c.Term != 0 && c.Term != l.Term {
		return nil, fmt.Errorf("judged in term %d, proposed in %d: %w", c.Term, l.Term, ErrTerm)
	}
	switch c := c.Command.(type) {
	case *fsmpb.Command_Init:
		return nil, tx.init(c.Init)
	case *fsmpb.Command_Create:
		return tx.create(c.Create)
	case *fsmpb.Command_Remove:
		return tx.remove(c.Remove)
	case *fsmpb.Command_SetAttributes:
		return tx.setAttributes(c.SetAttributes)
	case *fsmpb.Command_Resize:
		return tx.resize(c.Resize)
	case *fsmpb.Command_Grant:
		return tx.grant(c.Grant)
	case *fsmpb.Command_Settled:
		return tx.settled(c.Settled)
	case *fsmpb.Command_Close:
		return tx.closeFile(c.Close)
	case *fsmpb.Command_Allocate:
		return tx.allocate(c.Allocate)
	case *fsmpb.Command_Alter:
		return tx.alter(c.Alter)
	case *fsmpb.Command_CreateServer:
		return tx.createServer(c.CreateServer)
	case *fsmpb.Command_UpdateServer:
		return nil, tx.updateServer(c.UpdateServer)
	case *fsmpb.Command_SetConfig:
		return nil, tx.setConfig(c.SetConfig)
	case *fsmpb.Command_Swept:
		return nil, tx.swept(c.Swept)
	case *fsmpb.Command_Forget:
		return nil, tx.forget(c.Forget)
	case *fsmpb.Command_SetMember:
		return nil, tx.setMember(c.SetMember)
	case *fsmpb.Command_JoinMember:
		return tx.joinMember(c.JoinMember)
	case *fsmpb.Command_RemoveMember:
		return nil, tx.removeMember(c.RemoveMember)
	case *fsmpb.Command_Recovered:
		return nil, tx.recovered(c.Recovered)
	case *fsmpb.Command_RaiseLevel:
		return nil, tx.raiseLevel(c.RaiseLevel)
	case *fsmpb.Command_ReleaseServer:
		return nil, tx.releaseServer(c.ReleaseServer)
	case *fsmpb.Command_DropServer:
		return nil, tx.dropServer(c.DropServer)
	case *fsmpb.Command_TakeSnapshots:
		return tx.takeSnapshots(c.TakeSnapshots)
	case *fsmpb.Command_SnapshotFlushed:
		return nil, tx.snapshotFlushed(c.SnapshotFlushed)
	case *fsmpb.Command_GiveUpSnapshots:
		return nil, tx.giveUpSnapshots(c.GiveUpSnapshots)
	case *fsmpb.Command_DeleteSnapshot:
		return tx.deleteSnapshot(c.DeleteSnapshot)
	case *fsmpb.Command_ProtectSnapshot:
		return tx.protectSnapshot(c.ProtectSnapshot)
	case *fsmpb.Command_Folded:
		return tx.folded(c.Folded)
	case *fsmpb.Command_Clone:
		return tx.clone(c.Clone)
	case *fsmpb.Command_SwitchSnapshot:
		return tx.switchTo(c.SwitchSnapshot)
	case *fsmpb.Command_Emptied:
		return tx.emptied(c.Emptied)
	case *fsmpb.Command_Flatten:
		return tx.flatten(c.Flatten)
	case *fsmpb.Command_Flattened:
		return tx.flattened(c.Flattened)
	case *fsmpb.Command_SetIncoming:
		return tx.setIncoming(c.SetIncoming)
	case *fsmpb.Command_SetSchedule:
		return tx.setSchedule(c.SetSchedule)
	case *fsmpb.Command_SetQuota:
		return tx.setQuota(c.SetQuota)
	}
	return tx.applyTargets(&c)
}

// applyTargets does the commands that concern iSCSI targets and NBD exports.
func (tx *txn) applyTargets(c *fsmpb.Command) (any, error) {
	switch c := c.Command.(type) {
	case *fsmpb.Command_CreateTarget:
		return tx.createTarget(c.CreateTarget)
	case *fsmpb.Command_SetTarget:
		return tx.setTarget(c.SetTarget)
	case *fsmpb.Command_DeleteTarget:
		return nil, tx.deleteTarget(c.DeleteTarget)
	case *fsmpb.Command_AddLun:
		return tx.addLun(c.AddLun)
	case *fsmpb.Command_RemoveLun:
		return tx.removeLun(c.RemoveLun)
	case *fsmpb.Command_GrowLun:
		return tx.growLun(c.GrowLun)
	case *fsmpb.Command_SetAccount:
		return tx.setAccount(c.SetAccount)
	case *fsmpb.Command_DeleteAccount:
		return nil, tx.deleteAccount(c.DeleteAccount)
	case *fsmpb.Command_SaveReservations:
		return tx.saveReservations(c.SaveReservations)
	case *fsmpb.Command_SetExport:
		return tx.setExport(c.SetExport)
	case *fsmpb.Command_DeleteExport:
		return nil, tx.deleteExport(c.DeleteExport)
	case *fsmpb.Command_SetKey:
		return tx.setKey(c.SetKey)
	}
	tx.err = ErrNewer
	return nil, tx.err
}
