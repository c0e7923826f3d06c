package blockstore

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs/wire"
	"pstorage/meta/metapb"
)

// cluster is a metadata server and chunk servers in memory.
type cluster struct {
	meta    *fakeMeta
	tree    *fakeTree // in place of meta, where there are several files
	servers []*fakeServer
	clients uint64
	cut     sync.Map // [2]uint64{incarnation, server} that cannot connect
}

const testChunk = 1 << 20

func newCluster(n int, size int64, norm, least int) *cluster {
	k := &cluster{}
	for i := range n {
		k.servers = append(k.servers, newFakeServer(uint32(1025+i)))
	}
	k.meta = newFakeMeta(k.servers, size, norm, least, testChunk)
	return k
}

func (k *cluster) dialer(incarnation uint64) Dialer {
	return func(ctx context.Context, addr string, hello wire.Hello) (Conn, error) {
		for _, s := range k.servers {
			_, cut := k.cut.Load([2]uint64{incarnation, uint64(s.id)})
			if s.addr == addr && !cut {
				return s.dial(ctx, hello)
			}
		}
		return nil, errFake
	}
}

// client returns a new client process.
func (k *cluster) client(t testing.TB) *Client {
	k.clients++
	id := Identity{ID: [16]byte{byte(k.clients)}, Incarnation: k.clients}
	var meta metapb.MetaClient = k.meta
	if k.tree != nil {
		meta = k.tree
	}
	c, err := New(Config{Meta: meta, Identity: id, Dial: k.dialer(k.clients), Logger: testLogger(t)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// open opens the volume in a new client.
func (k *cluster) open(t testing.TB, opt OpenOptions) *Volume {
	t.Helper()
	opt.idleTicks = 2
	v, err := k.client(t).Open(context.Background(), "/demo", opt)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// differences compares the in-sync replicas of all chunks.
func (k *cluster) differences() error {
	k.meta.mu.Lock()
	defer k.meta.mu.Unlock()
	for i, c := range k.meta.chunks {
		var first *fakeReplica
		for _, id := range c.Insync {
			s := k.meta.server(id)
			s.mu.Lock()
			r := k.meta.replica(s, i)
			if first == nil {
				first = r
			} else if err := first.differs(r); err != nil {
				s.mu.Unlock()
				return fmt.Errorf("chunk %d on servers %d and %d: %w", i, c.Insync[0], id, err)
			}
			s.mu.Unlock()
		}
	}
	return nil
}

func (r *fakeReplica) differs(o *fakeReplica) error {
	for no, b := range r.blocks {
		if !bytes.Equal(b, o.blocks[no]) {
			return fmt.Errorf("block %d differs", no)
		}
	}
	for no := range o.blocks {
		if r.blocks[no] == nil {
			return fmt.Errorf("block %d is only on the second", no)
		}
	}
	return nil
}

func (k *cluster) insync(index uint32) []uint32 {
	k.meta.mu.Lock()
	defer k.meta.mu.Unlock()
	return slices.Clone(k.meta.chunks[index].Insync)
}

// device closes the client with its volume.
type device struct{ *Volume }

func (d device) Close() error {
	err := d.Volume.Close()
	if e := d.c.Close(); err == nil {
		err = e
	}
	return err
}

func TestVolumeIsABlockDevice(t *testing.T) {
	blocktest.Run(t, func(t *testing.T, size int64) block.Device {
		return device{newCluster(4, size, 3, 2).open(t, OpenOptions{})}
	})
}

// testLogger shows what the volume says when the test fails.
func testLogger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), nil))
}
