package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"pstorage/meta"
	"pstorage/meta/fsm"
)

func TestDumpOfAMetadataServerIsStable(t *testing.T) {
	s := &meta.State{
		Server: meta.StateServer{ID: 2, Cluster: "pcs1", ClusterID: "6ba7b8109dad11d180b400c04fd430c8", Address: "10.30.100.102:2510", Removed: true},
		Raft: meta.StateRaft{Snapshot: 8192, Index: 8210, Term: 4, Written: time.Unix(1700000000, 0),
			Servers: []meta.StatePeer{{ID: "1", Address: "10.30.100.101:2510", Voter: true}, {ID: "2", Address: "10.30.100.102:2510"}}},
		Problem: "entries from 8211 to 8212 cannot be read: raft log is corrupt", Recoveries: 1,
		Members: []json.RawMessage{json.RawMessage(`{"id":"1","address":"10.30.100.101:2510","version":"0.1"}`)},
		Servers: []json.RawMessage{json.RawMessage(`{"id":1025,"host":"h1","address":"10.30.100.103:1000"}`), json.RawMessage(`{`)},
		Config:  map[string]string{"mds.wd.offline_tout": "60", "mds.alloc.fill_margin": "7"},
		Files: []meta.StateFile{
			{Path: "/", ID: 1, Replicas: "3:2"},
			{Path: "/a", ID: 16, Replicas: "3:2", Counts: fsm.Counts{Chunks: 2, Degraded: 1}, Size: 1 << 30, Epoch: 3, Held: true},
			{Path: "/b", ID: 17, Replicas: "2:1", Size: 1 << 40, Epoch: 1},
		},
		Snapshots: []json.RawMessage{json.RawMessage(`{"id":"AQEBAQEBAQEBAQEBAQEBAQ==","file":"16","layer":1,"name":"before","size":"1073741824"}`)},
		Chunks: []meta.StateChunk{
			{File: 16, Version: 1, InSync: []uint32{1025, 1026, 1027}},
			{File: 16, Index: 1, Version: 9, InSync: []uint32{1025}, Syncing: []uint32{1028}, Former: []fsm.Former{{Server: 1026}, {Server: 1027, Corrupt: true}}},
		},
	}
	var text strings.Builder
	if err := writeMDSState(&text, s); err != nil {
		t.Fatal(err)
	}
	golden(t, "mds-dump.txt", text.String())
}
