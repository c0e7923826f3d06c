package meta

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
)

// scaleChunks is how many chunks BenchmarkScale has; PSTORAGE_BENCH_CHUNKS says otherwise (1600000 are 100 TB).
func scaleChunks() int {
	n, err := strconv.Atoi(os.Getenv("PSTORAGE_BENCH_CHUNKS"))
	if err != nil {
		return 50_000
	}
	return n
}

const (
	scaleServers = 100
	scaleFile    = 16384 // chunks: 1 TiB
	scaleBatch   = 1000
)

// BenchmarkScale measures what a metadata server costs that has many chunks with three replicas each: memory, disk, the time of a snapshot and
// of a restart until it leads.
func BenchmarkScale(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "mds")
	if err := Create(dir, CreateOptions{Cluster: "scale", Address: "127.0.0.1:0"}); err != nil {
		b.Fatal(err)
	}
	chunks := scaleChunks()
	populate(b, dir, chunks)
	debug.FreeOSMemory()
	anonymous, _ := resident(b)
	for b.Loop() {
		began := time.Now()
		s, err := Start(b.Context(), Config{Dir: dir})
		if err != nil {
			b.Fatal(err)
		}
		for !s.Leading() {
			time.Sleep(time.Millisecond)
		}
		restart := time.Since(began)
		began = time.Now()
		if err := s.node.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(began).Seconds(), "snapshot-s")
		b.ReportMetric(restart.Seconds(), "restart-s")
		runtime.GC()
		after, mapped := resident(b)
		b.ReportMetric(float64(after-min(after, anonymous))/1e6, "MB-memory")
		b.ReportMetric(float64(mapped)/1e6, "MB-mapped")
		b.ReportMetric(float64(diskUse(b, dir))/1e6, "MB-disk")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// populate makes the folder's snapshot one of a state with so many chunks.
func populate(b *testing.B, dir string, chunks int) {
	b.Helper()
	m, err := fsm.New(filepath.Join(dir, machineFile))
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	p := &populator{b: b, m: m, index: 1}
	for i := range scaleServers {
		p.do(&fsmpb.Command{Command: &fsmpb.Command_CreateServer{CreateServer: &fsmpb.CreateServer{Host: fmt.Sprint("host", i)}}})
	}
	began := time.Now()
	for at := 0; at < chunks; at += scaleFile {
		p.file(at, min(scaleFile, chunks-at))
	}
	b.Logf("%d chunks allocated at %.1f us each", chunks, float64(time.Since(began).Microseconds())/float64(chunks))
	p.snapshot(dir)
}

type populator struct {
	b     *testing.B
	m     *fsm.Machine
	index uint64
}

func (p *populator) do(c *fsmpb.Command) any {
	p.b.Helper()
	data, err := proto.Marshal(c)
	if err != nil {
		p.b.Fatal(err)
	}
	p.index++
	r := p.m.Apply(&raft.Log{Index: p.index, Term: 1, Type: raft.LogCommand, Data: data})
	if err, ok := r.(error); ok {
		p.b.Fatal(err)
	}
	return r
}

// file makes a file with its chunks, each on three of the servers.
func (p *populator) file(first, count int) {
	p.b.Helper()
	client := bytes.Repeat([]byte{1}, fsm.ClientIDSize)
	f := p.do(&fsmpb.Command{Command: &fsmpb.Command_Create{Create: &fsmpb.CreateNode{Path: fmt.Sprint("/f", first), Size: 1 << 40}}}).(*fsm.File)
	p.do(&fsmpb.Command{Command: &fsmpb.Command_Grant{Grant: &fsmpb.Grant{File: f.ID, Holder: &fsmpb.Holder{Id: client}}}})
	for at := 0; at < count; {
		c := &fsmpb.Allocate{File: f.ID, Epoch: 1, Client: client}
		for ; len(c.Chunks) < scaleBatch && at < count; at++ {
			n := uint32(first + at)
			s := []uint32{1025 + n%scaleServers, 1025 + (n*7+1)%scaleServers, 1025 + (n*13+2)%scaleServers}
			for i := range s {
				for s[i] == s[(i+1)%3] || s[i] == s[(i+2)%3] {
					s[i] = 1025 + (s[i]-1024)%scaleServers
				}
			}
			c.Chunks = append(c.Chunks, &fsmpb.NewChunk{Index: uint32(at), Servers: s})
		}
		p.do(&fsmpb.Command{Command: &fsmpb.Command_Allocate{Allocate: c}})
	}
}

func (p *populator) snapshot(dir string) {
	p.b.Helper()
	store, err := raft.NewFileSnapshotStoreWithLogger(filepath.Join(dir, snapshotDir), snapshotsKept, hclog.NewNullLogger())
	if err != nil {
		p.b.Fatal(err)
	}
	address, transport := raft.NewInmemTransport("127.0.0.1:0")
	servers := raft.Configuration{Servers: []raft.Server{{ID: "1", Address: address}}}
	sink, err := store.Create(raft.SnapshotVersionMax, p.index, 1, servers, 1, transport)
	if err != nil {
		p.b.Fatal(err)
	}
	s, err := p.m.Snapshot()
	if err != nil {
		p.b.Fatal(err)
	}
	began := time.Now()
	defer s.Release()
	if err := s.Persist(sink); err != nil {
		p.b.Fatal(err)
	}
	p.b.Logf("snapshot of %d entries in %v", p.index, time.Since(began))
}

// resident is the process's own memory, and what of its files is mapped and in memory (the kernel takes that back when it needs it).
func resident(b *testing.B) (anonymous, mapped uint64) {
	b.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Skip(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		n, _ := strconv.ParseUint(fields[1], 10, 64)
		switch fields[0] {
		case "RssAnon:":
			anonymous = n << 10
		case "RssFile:":
			mapped = n << 10
		}
	}
	return anonymous, mapped
}

func diskUse(b *testing.B, dir string) (bytes int64) {
	b.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return bytes
}
