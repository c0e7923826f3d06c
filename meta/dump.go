package meta

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
)

// State is what a metadata server's folder holds.
type State struct {
	Server     StateServer       `json:"server"`
	Raft       StateRaft         `json:"raft"`
	Problem    string            `json:"problem,omitempty"` // what could not be read
	Recoveries uint64            `json:"recoveries"`        // how often a lost majority was given up
	Level      uint64            `json:"level"`             // of the newest commands that all metadata servers know
	Members    []json.RawMessage `json:"metadata_servers"`  // records as they are: fsmpb.Member,
	Servers    []json.RawMessage `json:"chunk_servers"`     // fsmpb.Server
	Config     map[string]string `json:"config"`
	Files      []StateFile       `json:"files"`
	Chunks     []StateChunk      `json:"chunks,omitempty"`
	Snapshots  []json.RawMessage `json:"snapshots,omitempty"` // fsmpb.Snapshot
	Targets    []json.RawMessage `json:"targets,omitempty"`   // fsmpb.Target
	Accounts   []json.RawMessage `json:"accounts,omitempty"`  // fsmpb.Account, without what is secret
	Reserved   []StateReserved   `json:"reservations,omitempty"`
	Exports    []json.RawMessage `json:"exports,omitempty"` // fsmpb.Export
}

// StateReserved is what initiators have reserved of a volume.
type StateReserved struct {
	File     uint64 `json:"file"`
	Revision uint64 `json:"revision"`
	Bytes    int    `json:"bytes"`
}

// StateServer is whose folder it is.
type StateServer struct {
	ID        uint64 `json:"id"`
	Cluster   string `json:"cluster"`
	ClusterID string `json:"cluster_id"`
	Address   string `json:"address"`
	Removed   bool   `json:"removed"` // told that it is no member any more
}

// StateRaft is how far the folder goes. The last entries may not have been committed.
type StateRaft struct {
	Snapshot uint64      `json:"snapshot_index"`
	Index    uint64      `json:"last_index"`
	Term     uint64      `json:"last_term"`
	Written  time.Time   `json:"last_written"` // by the leader's clock; zero if not known
	Servers  []StatePeer `json:"servers"`
}

// StatePeer is a server of Raft's configuration.
type StatePeer struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Voter   bool   `json:"voter"`
}

// StateFile is a file or directory.
type StateFile struct {
	Path     string          `json:"path"`
	ID       uint64          `json:"id"`
	Record   json.RawMessage `json:"record"` // fsmpb.Node
	Replicas string          `json:"replicas"`
	Counts   fsm.Counts      `json:"counts"`
	Size     uint64          `json:"size"`
	Epoch    uint64          `json:"epoch"`
	Held     bool            `json:"held"`
	Clean    bool            `json:"clean"`
}

// StateChunk is a chunk.
type StateChunk struct {
	File    uint64       `json:"file"`
	Index   uint32       `json:"index"`
	Version uint64       `json:"version"`
	InSync  []uint32     `json:"in_sync"`
	Syncing []uint32     `json:"syncing,omitempty"`
	Former  []fsm.Former `json:"former,omitempty"`
}

// Dump reads a metadata server's folder, or a copy of it, whether a server runs there or not. Nothing in it is changed. Chunks are listed if asked
// for.
func Dump(dir string, chunks bool) (*State, error) {
	o, err := openOffline(dir)
	if err != nil {
		return nil, fmt.Errorf("read the metadata server in %s: %w", dir, err)
	}
	defer o.close()
	s := o.describe()
	err = o.machine.View(func(v *fsm.View) error { return s.read(v, chunks) })
	return s, err
}

func (o *offline) describe() *State {
	id := o.identity
	s := &State{
		Server:  StateServer{id.Node, id.Cluster, fmt.Sprintf("%x", id.ClusterID[:]), id.Address, o.removed},
		Raft:    StateRaft{Index: o.last.Index, Term: o.last.Term, Written: o.last.AppendedAt.UTC(), Servers: []StatePeer{}},
		Problem: o.problem, Members: []json.RawMessage{}, Servers: []json.RawMessage{}, Files: []StateFile{},
	}
	if o.snapshot != nil {
		s.Raft.Snapshot = o.snapshot.Index
	}
	for _, p := range o.servers {
		s.Raft.Servers = append(s.Raft.Servers, StatePeer{string(p.ID), string(p.Address), p.Suffrage == raft.Voter})
	}
	return s
}

func (s *State) read(v *fsm.View, chunks bool) error {
	s.Recoveries, s.Level, s.Config = v.Recoveries(), v.Level(), v.Config()
	for _, m := range v.MetadataServers() {
		s.Members = append(s.Members, record(m))
	}
	for _, c := range v.Servers() {
		s.Servers = append(s.Servers, record(c))
	}
	v.AllSnapshots(func(snap *fsmpb.Snapshot) bool {
		s.Snapshots = append(s.Snapshots, record(snap))
		return true
	})
	s.readTargets(v)
	var err error
	v.Files(func(id uint64, n *fsmpb.Node) bool {
		var f *fsm.File
		if f, err = v.File(id); err != nil {
			return false
		}
		s.Files = append(s.Files, StateFile{
			Path: f.Path, ID: f.ID, Record: record(n), Replicas: fmt.Sprintf("%d:%d", f.Policy.Norm, f.Policy.Min), Counts: f.Counts,
			Size: n.Size, Epoch: n.Epoch, Held: n.Holder != nil, Clean: n.Clean,
		})
		if chunks && !n.Directory {
			s.readChunks(v, id)
		}
		return true
	})
	return err
}

func (s *State) readTargets(v *fsm.View) {
	for _, t := range v.Targets() {
		s.Targets = append(s.Targets, record(t))
	}
	for _, a := range v.Accounts() {
		a.Sealed = nil
		s.Accounts = append(s.Accounts, record(a))
	}
	for _, e := range v.Exports() {
		s.Exports = append(s.Exports, record(e))
	}
	v.Reserved(func(file uint64, r *fsmpb.Reservations) {
		s.Reserved = append(s.Reserved, StateReserved{file, r.Revision, len(r.State)})
	})
}

func (s *State) readChunks(v *fsm.View, file uint64) {
	v.Chunks(file, 0, func(index uint32, c *fsm.Chunk) bool {
		s.Chunks = append(s.Chunks, StateChunk{file, index, c.Version, append([]uint32{}, c.Insync...),
			append([]uint32(nil), c.Syncing...), append([]fsm.Former(nil), c.Former...)})
		return true
	})
}

// record is a record as JSON: with every field that it has, those of later versions among them.
func record(m proto.Message) json.RawMessage {
	text, err := protojson.Marshal(m)
	if err != nil {
		text, _ = json.Marshal(err.Error())
	}
	return text
}
