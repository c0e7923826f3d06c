package volume

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"pstorage/blockstore"
	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs"
	"pstorage/meta"
	"pstorage/meta/client"
	"pstorage/meta/metapb"
)

// real is a cluster of one metadata server and some chunk servers, in this process, on a folder.
type real struct {
	t       testing.TB
	log     *slog.Logger
	meta    *meta.Server
	client  *client.Client
	dirs    []string
	servers []*cs.Server
	files   atomic.Int64
	pids    []int // of chunk servers that are processes
}

const realChunk = 1 << 20

func startReal(t testing.TB, servers int) *real {
	t.Helper()
	k := &real{t: t, log: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))}
	dir := t.TempDir()
	must(t, meta.Create(filepath.Join(dir, "mds"), meta.CreateOptions{Cluster: "real", Password: "x", Address: "127.0.0.1:0"}))
	var err error
	k.meta, err = meta.Start(context.Background(), meta.Config{Dir: filepath.Join(dir, "mds"), Address: "127.0.0.1:0", ClientAddress: "127.0.0.1:0", Logger: k.log})
	must(t, err)
	t.Cleanup(func() { must(t, k.meta.Close()) })
	k.client, err = client.New([]string{k.meta.ClientAddr()})
	must(t, err)
	t.Cleanup(func() { k.client.Close() })
	for i := range servers {
		k.dirs = append(k.dirs, filepath.Join(dir, fmt.Sprint("cs", i)))
		_, err := cs.Create(k.within(), cs.CreateOptions{Dir: k.dirs[i], MDS: []string{k.meta.ClientAddr()}, Host: fmt.Sprint("host", i)})
		must(t, err)
		k.servers = append(k.servers, nil)
		k.start(i)
	}
	t.Cleanup(func() {
		for i := range k.servers {
			k.stop(i)
		}
	})
	return k
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (k *real) within() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	k.t.Cleanup(cancel)
	return ctx
}

func (k *real) start(i int) {
	s, err := cs.Start(context.Background(), cs.Config{Dir: k.dirs[i], MDS: []string{k.meta.ClientAddr()}, Logger: k.log})
	must(k.t, err)
	k.servers[i] = s
}

func (k *real) stop(i int) {
	if k.servers[i] != nil {
		k.servers[i].Close()
		k.servers[i] = nil
	}
}

// create makes a new volume.
func (k *real) create(size int64, norm, least uint32) string {
	return k.createWith(size, norm, least, realChunk)
}

func (k *real) createWith(size int64, norm, least uint32, chunk uint64) string {
	path := fmt.Sprint("/v", k.files.Add(1))
	_, err := k.client.Create(k.within(), &metapb.CreateRequest{Path: path, Size: uint64(size),
		Attributes: &metapb.Attributes{ReplicasNorm: norm, ReplicasMin: least, ChunkSize: chunk}})
	must(k.t, err)
	return path
}

func (k *real) newClient(no byte) *blockstore.Client {
	c, err := blockstore.New(blockstore.Config{Meta: k.client, Identity: blockstore.Identity{ID: [16]byte{9, no}, Incarnation: uint64(time.Now().UnixNano())}, Logger: k.log})
	must(k.t, err)
	return c
}

func (k *real) openFile(c *blockstore.Client, path string) *blockstore.Volume {
	k.t.Helper()
	v, err := c.Open(k.within(), path, blockstore.OpenOptions{})
	must(k.t, err)
	return v
}

func TestVolumeOnARealClusterIsABlockDevice(t *testing.T) {
	k := startReal(t, 3)
	c := k.newClient(1)
	defer c.Close()
	blocktest.Run(t, func(t *testing.T, size int64) block.Device { return k.openFile(c, k.create(size, 3, 2)) })
}

// model is what a volume has to hold, checked in batches.
func work(t *testing.T, v *blockstore.Volume, m blocktest.Model, batches int) {
	t.Helper()
	generate := rapid.Custom(func(rt *rapid.T) []*block.Request { return m.Batch(rt) })
	for i := range batches {
		m.Run(t, v, generate.Example(i))
	}
}

func TestAVolumeOutlivesARealChunkServer(t *testing.T) {
	k := startReal(t, 3)
	c := k.newClient(1)
	defer c.Close()
	v := k.openFile(c, k.create(6<<20, 3, 2))
	m := make(blocktest.Model, 6<<20)
	work(t, v, m, 20)
	k.stop(1)
	work(t, v, m, 40)
	k.start(1)
	work(t, v, m, 40)
	m.Compare(t, v)
	must(t, v.Close())
	m.Compare(t, k.openFile(c, v.Path()))
}

func TestAHolderThatVanishedLeavesNothingTorn(t *testing.T) {
	k := startReal(t, 3)
	path := k.create(6<<20, 3, 2)
	m := make(blocktest.Model, 6<<20)
	first := k.newClient(1)
	work(t, k.openFile(first, path), m, 30) // and is not closed
	second := k.newClient(1)                // the same daemon, started again
	defer second.Close()
	v := k.openFile(second, path)
	m.Compare(t, v)
	work(t, v, m, 30)
	m.Compare(t, v)
	_ = first.Close() // its lease is lost: it must not give back the other's
	work(t, v, m, 10)
}

func TestAKilledChunkServerStopsNothing(t *testing.T) {
	k := startReal(t, 3)
	k.stop(1)
	kill := k.spawn(1)
	c := k.newClient(1)
	defer c.Close()
	v := k.openFile(c, k.create(6<<20, 3, 2))
	m := make(blocktest.Model, 6<<20)
	for range 3 {
		work(t, v, m, 10)
		kill()
		work(t, v, m, 10)
		kill = k.spawn(1)
		work(t, v, m, 10)
	}
	m.Compare(t, v)
}

func TestAllChunkServersKilledLoseNothingAcknowledged(t *testing.T) {
	k := startReal(t, 3)
	kill := make([]func(), 3)
	for i := range kill {
		k.stop(i)
		kill[i] = k.spawn(i)
	}
	c := k.newClient(1)
	defer c.Close()
	v := k.openFile(c, k.create(6<<20, 3, 2))
	m := make(blocktest.Model, 6<<20)
	for range 3 {
		work(t, v, m, 10)
		for i := range kill {
			kill[i]()
		}
		for i := range kill {
			kill[i] = k.spawn(i)
		}
		begin := time.Now()
		m.Compare(t, v)
		t.Logf("read again after %v", time.Since(begin))
		work(t, v, m, 1)
		t.Logf("written again after %v", time.Since(begin))
	}
	m.Compare(t, v)
}

func TestEverythingKilledLosesNothingAcknowledged(t *testing.T) {
	k := startReal(t, 3)
	kill := make([]func(), 3)
	for i := range kill {
		k.stop(i)
		kill[i] = k.spawn(i)
	}
	path := k.create(6<<20, 3, 2)
	m := make(blocktest.Model, 6<<20)
	for range 3 {
		c := k.newClient(1) // the same daemon, started again
		defer c.Close()
		v := k.openFile(c, path)
		m.Compare(t, v)
		work(t, v, m, 10)
		for i := range kill {
			kill[i]()
			kill[i] = k.spawn(i)
		}
	}
	c := k.newClient(1)
	defer c.Close()
	m.Compare(t, k.openFile(c, path))
}
