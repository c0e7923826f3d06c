package print

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"pstorage/meta/metapb"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs from what is printed now (go test -update writes it anew).\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func files() []*metapb.FileInfo {
	effective := &metapb.Attributes{ReplicasNorm: 3, ReplicasMin: 2, FailureDomain: "host", ChunkSize: 64 << 20, Tier: 1}
	return []*metapb.FileInfo{
		{Path: "/archive", Directory: true, Own: &metapb.Attributes{ReplicasNorm: 2, ReplicasMin: 1}, Effective: &metapb.Attributes{ReplicasNorm: 2, ReplicasMin: 1}},
		{Path: "/demo", Id: 1, Size: 10 << 30, Effective: effective, Epoch: 4, Holder: "a-client", HolderHost: "node-1", Chunks: 38, CreatedUnix: 1700000000, VerifiedUnix: 1700000000, Losses: 2},
		{Path: "/a-rather-long-name", Id: 2, Size: 1536 << 30, Effective: effective, Clean: true, Chunks: 1200, DegradedChunks: 3},
		{Path: "/hurt", Id: 3, Size: 512, Effective: effective, Chunks: 1, UnwritableChunks: 1, DegradedChunks: 1},
		{Path: "/gone", Id: 4, Size: 512, Effective: effective, Chunks: 1, LostChunks: 1},
	}
}

func status() *metapb.StatusReply {
	return &metapb.StatusReply{
		Cluster: "pcs1", ClusterId: []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16},
		Mds: []*metapb.Mds{
			{Id: 1, Address: "10.30.17.38:2510", ClientAddress: "10.30.17.38:2511", Leader: true, Version: "0.1", State: metapb.Mds_AVAIL,
				Load: &metapb.MdsLoad{UptimeSeconds: 17*86400 + 6*3600, Memory: 64 << 20, LogTime: 0.0123, Commits: 41.6, Cpu: 0.071}},
			{Id: 2, Address: "10.30.45.12:2510", ClientAddress: "10.30.45.12:2511", Version: "0.1", State: metapb.Mds_AVAIL,
				Load: &metapb.MdsLoad{UptimeSeconds: 3*3600 + 120, Memory: 50 << 20}},
			{Id: 4, Address: "10.30.10.15:2510", State: metapb.Mds_JOINING, Behind: 40, Version: "0.1", Load: &metapb.MdsLoad{UptimeSeconds: 7}},
			{Id: 5, Address: "10.30.10.16:2510", State: metapb.Mds_UNAVAIL, Version: "0.1"},
		},
		Servers: []*metapb.Server{
			{Id: 1025, Address: "127.0.0.1:40001", Host: "h1", State: metapb.Server_ACTIVE, SpaceTotal: 105 << 30, SpaceFree: 88 << 30, SpaceUsed: 17 << 30, Replicas: 40,
				Scrubbing:   &metapb.Scrubbing{Replicas: 12, Bytes: 768 << 20, Bad: 1, OldestUnix: 1700000000, Never: 3},
				JournalSize: 2 << 30, JournalUsed: 5 << 20},
			{Id: 1026, Address: "127.0.0.1:40002", Host: "h2", State: metapb.Server_OFFLINE, SpaceTotal: 1700 << 30, SpaceFree: 99 << 30, SpaceUsed: 1 << 30, Replicas: 7, Suspects: 2, Errors: 1, DiskErrors: 4},
			{Id: 1027, Address: "127.0.0.1:40003", Host: "h3", State: metapb.Server_ACTIVE, Releasing: true, Members: 12, Replicas: 12, Tier: 2, Location: "0.1.2",
				SpaceTotal: 105 << 30, SpaceFree: 88 << 30, PulledBytes: 3 << 20},
			{Id: 1028, Host: "h4", State: metapb.Server_DROPPED},
			{Id: 1029, Host: "h5", State: metapb.Server_DROPPED, Members: 1},
		},
		Files: 51, Chunks: 38, Healthy: 30, Degraded: 8, Size: 10 << 30, Clients: 1,
		Recovery:  &metapb.Recovery{Queued: 8, Rebuilding: 3, Moving: 1, Releasing: 12, BytesPerSecond: 12 << 20, EtaSeconds: 130, MovedBytes: 5 << 30, Rebuilt: 80},
		Scrubbing: &metapb.Scrubbing{Replicas: 12, Bytes: 768 << 20, Bad: 1, OldestUnix: 1700000000, Never: 3}, Repaired: 1, Losses: 2,
		Config: map[string]string{"mds.alloc.fill_margin": "5"},
	}
}

func TestPrintedFormIsStable(t *testing.T) {
	for name, write := range map[string]func(*bytes.Buffer) error{
		"mds.txt":      func(b *bytes.Buffer) error { return MDSTable(b, NewMDS(status())) },
		"mds.json":     func(b *bytes.Buffer) error { return JSON(b, NewMDS(status())) },
		"volumes.txt":  func(b *bytes.Buffer) error { return VolumeTable(b, NewVolumes(files())) },
		"volumes.json": func(b *bytes.Buffer) error { return JSON(b, NewVolumes(files())) },
		"attr.txt":     func(b *bytes.Buffer) error { return VolumeAttributes(b, NewVolume(files()[1])) },
		"attr-dir.txt": func(b *bytes.Buffer) error { return VolumeAttributes(b, NewVolume(files()[0])) },
		"status.txt":   func(b *bytes.Buffer) error { return StatusText(b, NewStatus(status())) },
		"status.json":  func(b *bytes.Buffer) error { return JSON(b, NewStatus(status())) },
		"stopped.txt": func(b *bytes.Buffer) error {
			return StatusText(b, NewStatus(&metapb.StatusReply{Cluster: "pcs1", Recovery: &metapb.Recovery{Stopped: true, Queued: 4}}))
		},
		"empty.txt":  func(b *bytes.Buffer) error { return StatusText(b, NewStatus(&metapb.StatusReply{Cluster: "new"})) },
		"empty.json": func(b *bytes.Buffer) error { return JSON(b, NewVolumes(nil)) },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		golden(t, name, b.Bytes())
	}
}

func TestHealthIsTheWorstThatIsTheCase(t *testing.T) {
	for want, s := range map[string]*metapb.StatusReply{
		"healthy":  {Chunks: 3, Healthy: 3},
		"degraded": {Chunks: 3, Healthy: 2, Degraded: 1},
		"blocked":  {Chunks: 3, Degraded: 2, Unwritable: 1},
		"failure":  {Chunks: 3, Degraded: 1, Unwritable: 1, Lost: 1},
	} {
		if got := NewStatus(s).Health; got != want {
			t.Errorf("health of %v is %q, want %q", s, got, want)
		}
	}
}

func TestServersThatWereDroppedAreNotMissed(t *testing.T) {
	for want, s := range map[string]*metapb.StatusReply{
		"healthy":  {Servers: []*metapb.Server{{State: metapb.Server_ACTIVE, Releasing: true}, {State: metapb.Server_DROPPED}}},
		"degraded": {Servers: []*metapb.Server{{State: metapb.Server_INACTIVE, Releasing: true}}},
		"failure":  {Recovery: &metapb.Recovery{Stopped: true}},
	} {
		if got := NewStatus(s).Health; got != want {
			t.Errorf("health of %v is %q, want %q", s, got, want)
		}
	}
}
