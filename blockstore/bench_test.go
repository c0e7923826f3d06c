package blockstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs/chunk"
	"pstorage/cs/disk"
	"pstorage/cs/store"
	"pstorage/cs/wire"
	"pstorage/meta/metapb"
)

// serverEnv makes the test binary a chunk server without metadata servers, whose replicas are there already: the benchmarks run three
// of them as processes.
const serverEnv = "PSTORAGE_TEST_CHUNK_SERVER"

const (
	benchChunkSize = 64 << 20
	benchChunks    = 8
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(serverEnv); dir != "" {
		if err := serveBench(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func serveBench(dir string) error {
	dir = filepath.Join(dir, "store")
	if err := store.Create(disk.OS{}, dir); err != nil {
		return err
	}
	st, err := store.Open(disk.OS{}, dir, store.Options{Reserve: -1})
	if err != nil {
		return err
	}
	var list []store.Preparation
	for i := range uint32(benchChunks) {
		list = append(list, store.Preparation{ID: chunk.ID{File: fakeFile, Index: i}, Blocks: benchChunkSize / block.Size, Layers: []uint32{fakeLayer},
			Epoch: 1, Version: 1, State: store.InSync})
	}
	if err := errors.Join(st.Prepare(list)...); err != nil {
		return err
	}
	id, err := strconv.Atoi(os.Getenv(serverEnv + "_ID"))
	if err != nil {
		return err
	}
	s := wire.NewServer(wire.ServerConfig{Engine: st, Server: uint32(id), ClusterID: [16]byte([]byte("0123456789abcdef"))})
	s.Admit(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go s.Serve(l)
	bufio.NewReader(os.Stdin).ReadByte() // until the benchmark is over
	return nil
}

// benchMeta knows of chunk servers that are processes.
type benchMeta struct {
	*fakeMeta
	list []*metapb.Server
}

func (m *benchMeta) GetChunks(ctx context.Context, in *metapb.GetChunksRequest, o ...grpc.CallOption) (*metapb.GetChunksReply, error) {
	rep, err := m.fakeMeta.GetChunks(ctx, in, o...)
	if err == nil {
		rep.Servers = m.list
	}
	return rep, err
}

func startServer(b *testing.B, id uint32) string {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), serverEnv+"="+b.TempDir(), fmt.Sprint(serverEnv, "_ID=", id))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { in.Close(); cmd.Wait() })
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	return strings.TrimSpace(addr)
}

func benchVolume(b *testing.B) *Volume {
	m := &benchMeta{fakeMeta: newFakeMeta(nil, benchChunks*benchChunkSize, 3, 2, benchChunkSize)}
	for i := range uint32(3) {
		m.list = append(m.list, &metapb.Server{Id: 1025 + i, Address: startServer(b, 1025+i), State: metapb.Server_ACTIVE})
	}
	for i := range uint32(benchChunks) {
		m.chunks[i] = &metapb.Chunk{Index: i, Version: 1, Insync: []uint32{1025, 1026, 1027}}
	}
	c, err := New(Config{Meta: m, Identity: Identity{ID: [16]byte{1}, Incarnation: 1}})
	if err != nil {
		b.Fatal(err)
	}
	v, err := c.Open(context.Background(), "/demo", OpenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return v
}

// load keeps a number of requests in flight, as a front end does: what comes back together goes out together.
type load struct {
	d      block.Device
	left   atomic.Int64
	out    atomic.Int64
	bad    atomic.Int64
	random bool
	seed   atomic.Uint64
	end    chan struct{}
}

func (l *load) Complete(batch []*block.Request) {
	next := make([]*block.Request, 0, len(batch))
	for _, r := range batch {
		if r.Err != nil {
			l.bad.Add(1)
		}
		if l.left.Add(-1) >= 0 {
			l.place(r)
			next = append(next, r)
		} else if l.out.Add(-1) == 0 {
			close(l.end)
		}
	}
	if len(next) > 0 {
		l.d.Submit(next)
	}
}

func (l *load) place(r *block.Request) {
	n := l.seed.Add(1)
	if l.random {
		n = n * 6364136223846793005 >> 20
	}
	r.Offset = int64(n%uint64(l.d.Size()/r.Length)) * r.Length
}

func (l *load) run(b *testing.B, op block.Op, size int64, depth int, random bool) {
	depth = min(depth, b.N)
	l.random, l.end = random, make(chan struct{})
	l.left.Store(int64(b.N - depth))
	l.out.Store(int64(depth))
	var batch []*block.Request
	for i := range depth {
		r := &block.Request{Op: op, Length: size, Data: blocktest.Bytes(uint64(i), int(size)), Done: l}
		l.place(r)
		batch = append(batch, r)
	}
	b.SetBytes(size)
	b.ReportAllocs()
	b.ResetTimer()
	l.d.Submit(batch)
	<-l.end
	if n := l.bad.Load(); n > 0 {
		b.Fatalf("%d requests failed, one with %v", n, batch[0].Err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

// BenchmarkVolume: three replicas in three processes, over TCP, data in the page cache.
func BenchmarkVolume(b *testing.B) {
	v := benchVolume(b)
	for _, c := range []struct {
		name   string
		op     block.Op
		size   int64
		depth  int
		random bool
	}{
		{"sequential-write-128K", block.Write, 128 << 10, 16, false},
		{"sequential-read-128K", block.Read, 128 << 10, 16, false},
		{"random-write-4K-32", block.Write, 4096, 32, true},
		{"random-read-4K-32", block.Read, 4096, 32, true},
		{"random-write-4K-1", block.Write, 4096, 1, true},
		{"random-read-4K-1", block.Read, 4096, 1, true},
	} {
		b.Run(c.name, func(b *testing.B) { (&load{d: v}).run(b, c.op, c.size, c.depth, c.random) })
	}
}
