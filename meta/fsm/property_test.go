package fsm

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"

	"pstorage/meta/fsm/fsmpb"
)

var paths = []string{"/", "/a", "/b", "/a/x", "/a/y", "/a/d", "/a/d/z", "/iscsi", "/iscsi/a", "/iscsi/a/1"}

// drawCommand makes commands of which many hit something: few paths, files, servers, chunks and versions.
func drawCommand(t *rapid.T) any {
	path := rapid.SampledFrom(paths).Draw(t, "path")
	file := rapid.Uint64Range(firstNode, firstNode+4).Draw(t, "file")
	epoch := rapid.Uint64Range(0, 3).Draw(t, "epoch")
	server := rapid.Uint32Range(firstServer, firstServer+4)
	servers := func(name string, least, most int) []uint32 {
		return rapid.SliceOfNDistinct(server, least, most, rapid.ID[uint32]).Draw(t, name)
	}
	index := rapid.SampledFrom([]uint32{0, 1, 511, 512, 513}).Draw(t, "index")
	switch rapid.IntRange(0, 30).Draw(t, "kind") {
	case 17:
		return drawMember(t)
	case 18, 19, 20, 21, 22:
		return drawTargets(t)
	case 23, 24, 25, 26:
		return drawSnapshots(t)
	case 27, 28:
		return drawTree(t)
	case 29:
		return drawExports(t)
	case 30:
		return &fsmpb.SetQuota{Path: path, Limit: rapid.SampledFrom([]uint64{0, 1 << 30, 1 << 38, 1 << 40}).Draw(t, "quota")}
	case 0:
		return &fsmpb.CreateNode{Path: path, Directory: rapid.Bool().Draw(t, "dir"), Attributes: drawAttributes(t)}
	case 1:
		return &fsmpb.CreateNode{Path: path, Size: 1 << 37, Attributes: drawAttributes(t)}
	case 2:
		return &fsmpb.RemoveNode{Path: path, Epoch: epoch, Force: rapid.Bool().Draw(t, "force")}
	case 3:
		return &fsmpb.SetAttributes{Path: path, Attributes: drawAttributes(t)}
	case 4:
		return &fsmpb.Resize{Path: path, Size: rapid.Uint64Range(0, 1<<40).Draw(t, "size")}
	case 5:
		return &fsmpb.Grant{File: file, Epoch: epoch, Holder: &fsmpb.Holder{Id: alice}}
	case 6:
		return &fsmpb.Settled{File: file, Epoch: epoch, Client: alice}
	case 7:
		return &fsmpb.CloseFile{File: file, Epoch: epoch, Client: alice, Clean: true}
	case 8:
		return &fsmpb.CreateServer{}
	case 9:
		return &fsmpb.Swept{Server: server.Draw(t, "server"), Blocks: []*fsmpb.SweptBlock{{File: file, Block: index / BlockSpan}}}
	case 10:
		return &fsmpb.Forget{Server: server.Draw(t, "server"), Chunks: []*fsmpb.ForgetChunk{{File: file, Index: index}}}
	case 15:
		return &fsmpb.ReleaseServer{Id: server.Draw(t, "server"), Cancel: rapid.Bool().Draw(t, "cancel")}
	case 16:
		return &fsmpb.DropServer{Id: server.Draw(t, "server"), Force: rapid.IntRange(0, 3).Draw(t, "force") == 0}
	case 11, 12:
		return &fsmpb.Allocate{File: file, Epoch: epoch, Client: alice, Chunks: []*fsmpb.NewChunk{{Index: index, Servers: servers("on", 1, 3)}}}
	default:
		return &fsmpb.Alter{Files: []*fsmpb.FileChanges{{File: file, Settled: rapid.Bool().Draw(t, "settled"), SettledEpoch: epoch,
			Changes: []*fsmpb.Change{{
				Index: index, Version: rapid.Uint64Range(1, 4).Draw(t, "version"), Corrupt: rapid.Bool().Draw(t, "corrupt"), Lost: rapid.Bool().Draw(t, "lost"),
				Drop: servers("drop", 0, 2), Syncing: servers("syncing", 0, 1), Promote: servers("promote", 0, 1)}}}}}
	}
}

func drawMember(t *rapid.T) any {
	n := rapid.Uint64Range(0, 4).Draw(t, "member")
	address := fmt.Sprint("mds", n)
	switch rapid.IntRange(0, 3).Draw(t, "member command") {
	case 0:
		return &fsmpb.JoinMember{Address: address, Level: Level, Nonce: []byte{byte(rapid.IntRange(0, 3).Draw(t, "nonce"))}, Replaces: rapid.Uint64Range(0, 2).Draw(t, "replaces")}
	case 1:
		return &fsmpb.RemoveMember{Id: n}
	case 2:
		return &fsmpb.SetMember{Id: fmt.Sprint(n), Address: address, Level: Level}
	}
	return &fsmpb.Recovered{Id: n}
}

func drawAttributes(t *rapid.T) *fsmpb.Attributes {
	norm := rapid.Uint32Range(0, 4).Draw(t, "norm")
	return &fsmpb.Attributes{Norm: norm, Min: rapid.Uint32Range(min(norm, 1), norm).Draw(t, "min")}
}

// Whatever the entries, however they are batched, and whether the state came by a snapshot half-way: all machines are equal, and their
// derived buckets say what the chunk table says.
func TestAllMachinesAreEqual(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		log := []*raft.Log{entry(1, &fsmpb.Init{Cluster: "c", ClusterId: alice, Level: Level})}
		for i := range rapid.IntRange(1, 60).Draw(rt, "entries") {
			log = append(log, entry(uint64(i+2), drawCommand(rt)))
		}
		a, b, c := machine(rt, dir, "a"), machine(rt, dir, "b"), machine(rt, dir, "c")
		defer a.Close()
		defer b.Close()
		defer c.Close()
		for _, l := range log {
			a.Apply(l)
		}
		half := rapid.IntRange(0, len(log)).Draw(rt, "half")
		for rest := log[:half]; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "batch")
			b.ApplyBatch(rest[:n])
			rest = rest[n:]
		}
		b.copyTo(t, c)
		if half < len(log) {
			b.ApplyBatch(log[half:])
			c.ApplyBatch(log[half:])
		}
		a.check(t)
		for _, other := range []*bench{b, c} {
			if d := Difference(a.dump(), other.dump()); d != "" {
				rt.Fatal(d)
			}
		}
	})
}

func machine(t *rapid.T, dir, name string) *bench {
	m, err := New(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return &bench{Machine: m}
}

func BenchmarkAllocate(b *testing.B) {
	const batch = 1000
	bench, f := opened(b, 10, 0)
	index := uint32(0)
	for b.Loop() {
		c := &fsmpb.Allocate{File: f.ID, Epoch: 1, Client: alice}
		for range batch {
			s := firstServer + index%8
			c.Chunks = append(c.Chunks, &fsmpb.NewChunk{Index: index % (1 << 14), Servers: []uint32{s, s + 1, s + 2}})
			index++
		}
		if index%(1<<14) < batch { // the file is full
			f = must[*File](b, bench, &fsmpb.CreateNode{Path: "/" + string(rune('a'+index>>14%26)) + string(rune('a'+index>>19)), Size: 1 << 40})
			must[*Granted](b, bench, &fsmpb.Grant{File: f.ID, Holder: &fsmpb.Holder{Id: alice}})
			continue
		}
		must[*Altered](b, bench, c)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/chunk")
}
