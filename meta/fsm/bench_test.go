package fsm

import (
	"os"
	"strconv"
	"testing"

	"pstorage/meta/fsm/fsmpb"
)

// benchChunks is how many chunks the larger benchmarks have; PSTORAGE_BENCH_CHUNKS says otherwise.
func benchChunks(b *testing.B) int {
	n, err := strconv.Atoi(os.Getenv("PSTORAGE_BENCH_CHUNKS"))
	if err != nil {
		return 20_000
	}
	return min(n, 1<<24)
}

// full is a machine with one file of n chunks, on three of ten servers each.
func full(b *testing.B, n int) (*bench, *File) {
	b.Helper()
	m, _ := opened(b, 10, 0)
	f := must[*File](b, m, &fsmpb.CreateNode{Path: "/full", Size: MaxSize})
	must[*Granted](b, m, &fsmpb.Grant{File: f.ID, Holder: &fsmpb.Holder{Id: alice}})
	for at := 0; at < n; {
		c := &fsmpb.Allocate{File: f.ID, Epoch: 1, Client: alice}
		for ; len(c.Chunks) < 1000 && at < n; at++ {
			s := firstServer + uint32(at)%8
			c.Chunks = append(c.Chunks, &fsmpb.NewChunk{Index: uint32(at), Servers: []uint32{s, s + 1, s + 2}})
		}
		must[*Altered](b, m, c)
	}
	return m, f
}

func perChunk(b *testing.B, n int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/chunk")
}

// BenchmarkFileOnServer finds all chunks of a file on a server.
func BenchmarkFileOnServer(b *testing.B) {
	m, f := full(b, benchChunks(b))
	n := 0
	for b.Loop() {
		n = 0
		_ = m.View(func(v *View) error {
			v.FileReplicas(firstServer+2, f.ID, func(blk *Block) bool { return blk.Each(func(uint32) bool { n++; return true }) })
			return nil
		})
	}
	perChunk(b, n)
	if s, err := os.Stat(m.path); err == nil {
		b.ReportMetric(float64(s.Size())/float64(benchChunks(b)), "bytes/chunk")
	}
}

// BenchmarkDrop drops a server from all chunks of a file, in one entry, and back again.
func BenchmarkDrop(b *testing.B) {
	m, f := full(b, benchChunks(b))
	must[*File](b, m, &fsmpb.Settled{File: f.ID, Epoch: 1, Client: alice})
	const server = firstServer + 2
	var keys []uint32
	_ = m.View(func(v *View) error {
		v.FileReplicas(server, f.ID, func(blk *Block) bool {
			return blk.Each(func(i uint32) bool { keys = append(keys, i); return true })
		})
		return nil
	})
	version := uint64(1)
	change := func(fill func(*fsmpb.Change)) {
		c := &fsmpb.FileChanges{File: f.ID}
		for _, i := range keys {
			ch := &fsmpb.Change{Index: i, Version: version}
			fill(ch)
			c.Changes = append(c.Changes, ch)
		}
		if o := must[*Altered](b, m, &fsmpb.Alter{Files: []*fsmpb.FileChanges{c}}).Outcomes[0]; o.Err != nil {
			b.Fatal(o.Err)
		}
	}
	for b.Loop() {
		change(func(ch *fsmpb.Change) { ch.Drop = []uint32{server} })
		version++
		change(func(ch *fsmpb.Change) { ch.Syncing = []uint32{server} })
		version++
		change(func(ch *fsmpb.Change) { ch.Promote = []uint32{server} })
	}
	perChunk(b, 3*len(keys))
}

// BenchmarkSnapshot streams the state out.
func BenchmarkSnapshot(b *testing.B) {
	m, _ := full(b, benchChunks(b))
	var out sink
	for b.Loop() {
		out.Reset()
		s, err := m.Snapshot()
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Persist(&out); err != nil {
			b.Fatal(err)
		}
		s.Release()
	}
	b.SetBytes(int64(out.Len()))
}
