package blockstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs/wire"
	"pstorage/meta/metapb"
)

// OpenSnapshot: a snapshot's name is the number of its layer.
func (m *fakeMeta) OpenSnapshot(_ context.Context, in *metapb.OpenSnapshotRequest, _ ...grpc.CallOption) (*metapb.OpenSnapshotReply, error) {
	if err := m.lock(nil); err != nil {
		return nil, err
	}
	defer m.mu.Unlock()
	var layer uint32
	if _, err := fmt.Sscan(in.Name, &layer); err != nil || !slices.Contains(m.info.Layers, layer) {
		return nil, status.Error(codes.NotFound, "no such snapshot")
	}
	return &metapb.OpenSnapshotReply{Snapshot: &metapb.Snapshot{Id: make([]byte, 16), File: m.info.Id, Layer: layer, Size: m.info.Size}, File: m.copyInfo(),
		Servers: m.list()}, nil
}

// openSnapshot opens the snapshot of a layer in a client of its own.
func (k *cluster) openSnapshot(t testing.TB, layer uint32) *Snapshot {
	t.Helper()
	s, err := k.client(t).OpenSnapshot(context.Background(), "/demo", fmt.Sprint(layer))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// shows reports an error unless the block at offset of the snapshot is what the seed makes; 0: zeros.
func shows(s *Snapshot, offset int64, seed uint64) error {
	r := blocktest.Read(offset, block.Size)
	if blocktest.Do(s, r); r.Err != nil {
		return r.Err
	}
	want := make([]byte, block.Size)
	if seed > 0 {
		want = blocktest.Bytes(seed, block.Size)
	}
	if !bytes.Equal(r.Data, want) {
		return fmt.Errorf("block at %d of the snapshot does not hold write %d", offset, seed)
	}
	return nil
}

// frozenScene is a volume with a snapshot: block 0 was 1 then and is 2 now, the next was written since, as was another chunk.
func frozenScene(t *testing.T, k *cluster) (*Volume, *Snapshot) {
	v := k.open(t, OpenOptions{})
	if err := write(v, 0, 1); err != nil {
		t.Fatal(err)
	}
	layer, err := k.meta.take("snapshot")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(write(v, 0, 2), write(v, block.Size, 3), write(v, testChunk, 4)); err != nil {
		t.Fatal(err)
	}
	return v, k.openSnapshot(t, layer)
}

func (k *cluster) endAll(v *Volume, s *Snapshot) {
	k.end(v)
	_ = s.Close()
	_ = s.c.Close()
	time.Sleep(time.Minute)
}

func TestSnapshotsAreReadAsTheyWere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v, s := frozenScene(t, k)
		defer func() { k.endAll(v, s) }()
		if err := errors.Join(shows(s, 0, 1), shows(s, block.Size, 0), shows(s, testChunk, 0), shows(s, 5*testChunk, 0)); err != nil {
			t.Error(err)
		}
		part := blocktest.Read(512, 2*block.Size)
		blocktest.Must(t, s, part)
		want := append(slices.Clone(blocktest.Bytes(1, block.Size)), make([]byte, 2*block.Size)...)[512:][:2*block.Size]
		if !bytes.Equal(part.Data, want) {
			t.Error("a read of parts of blocks differs")
		}
		got, err := s.Extents(context.Background(), 0, testSize, 9)
		if err != nil || len(got) != 2 || got[0] != (block.Extent{Length: block.Size, Allocated: true}) || !got[1].Zero || got[1].Length != testSize-block.Size {
			t.Errorf("extents %+v, %v", got, err)
		}
		for _, r := range []*block.Request{blocktest.Write(0, make([]byte, block.Size)), blocktest.Zero(block.Discard, 0, block.Size)} {
			if blocktest.Do(s, r); !errors.Is(r.Err, block.ErrReadOnly) {
				t.Errorf("%v of a snapshot: %v", r.Op, r.Err)
			}
		}
		blocktest.Must(t, s, &block.Request{Op: block.Flush})
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := shows(s, 0, 1); !errors.Is(err, block.ErrClosed) {
			t.Errorf("a read after closing: %v", err)
		}
		if err := holds(v, 0, 2); err != nil { // its lease is untouched
			t.Error(err)
		}
	})
}

// Whoever writes to the volume, and whatever becomes of replicas, a snapshot is read while one in sync is left.
func TestSnapshotsAreReadWhateverBecomesOfReplicas(t *testing.T) {
	for name, during := range map[string]func(k *cluster, v *Volume){
		"another opens the volume":   func(k *cluster, v *Volume) { _ = v.c.Close(); _ = k.open(t, OpenOptions{}).c.Close() },
		"one dies":                   func(k *cluster, v *Volume) { k.servers[0].kill(false) },
		"two die":                    func(k *cluster, v *Volume) { k.servers[0].kill(false); k.servers[2].kill(false) },
		"one does not answer":        func(k *cluster, v *Volume) { k.servers[1].goDeaf() },
		"connections break":          func(k *cluster, v *Volume) { k.servers[0].hangUp(); k.servers[1].hangUp(); k.servers[2].hangUp() },
		"one is dropped":             func(k *cluster, v *Volume) { k.servers[0].kill(false); _ = write(v, 0, 9) },
		"one is dropped and rebuilt": func(k *cluster, v *Volume) { k.servers[0].kill(false); _ = write(v, 0, 9); k.meta.rebuild(func() {}) },
		"one does not match its sums": func(k *cluster, v *Volume) {
			k.servers[0].set(func() { k.servers[0].replica(0).corrupt = map[uint32]bool{0: true} })
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newCluster(4, testSize, 3, 1)
				v, s := frozenScene(t, k)
				defer func() { k.endAll(v, s) }()
				if err := shows(s, 0, 1); err != nil {
					t.Fatal(err)
				}
				during(k, v)
				for range 4 {
					if err := errors.Join(shows(s, 0, 1), shows(s, block.Size, 0)); err != nil {
						t.Error(err)
					}
				}
			})
		})
	}
}

// A read of a snapshot that nobody can serve ends.
func TestReadsOfASnapshotEnd(t *testing.T) {
	for name, c := range map[string]struct {
		during func(k *cluster)
		want   error
	}{
		"nobody is there": {func(k *cluster) {
			for _, s := range k.servers {
				s.kill(false)
			}
		}, block.ErrUnavailable},
		"it was deleted":  {func(k *cluster) { k.fails(wire.NoLayer) }, ErrSnapshotDeleted},
		"a block is lost": {func(k *cluster) { k.fails(wire.Lost) }, block.ErrLostData},
		"all are damaged": {func(k *cluster) { k.fails(wire.Corrupt) }, block.ErrCorrupt},
		"none has it":     {func(k *cluster) { k.fails(wire.NoChunk) }, block.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newCluster(3, testSize, 3, 1)
				v, s := frozenScene(t, k)
				defer func() { k.endAll(v, s) }()
				c.during(k)
				begin := time.Now()
				if err := shows(s, 0, 1); !errors.Is(err, c.want) || time.Since(begin) > snapshotWait+slowDeadline {
					t.Errorf("after %v: %v, want %v", time.Since(begin), err, c.want)
				}
				deleted := errors.Is(c.want, ErrSnapshotDeleted)
				if err := shows(s, testChunk*5, 0); errors.Is(err, ErrSnapshotDeleted) != deleted || err != nil && !deleted {
					t.Errorf("what does not exist: %v", err)
				}
				if s.Deleted() != deleted {
					t.Errorf("deleted: %v", s.Deleted())
				}
			})
		})
	}
}

// fails has all servers answer reads of frozen layers so.
func (k *cluster) fails(status wire.Status) {
	for _, s := range k.servers {
		s.set(func() {
			s.fail = func(w *wire.Call) wire.Status {
				if w.Flags&wire.FlagFrozen != 0 {
					return status
				}
				return wire.OK
			}
		})
	}
}

func TestClosingASnapshotEndsItsReads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 1)
		v, s := frozenScene(t, k)
		defer func() { k.endAll(v, s) }()
		k.fails(wire.NoChunk)
		var all []*async
		for i := range int64(100) {
			r := &async{blocktest.Read(i%2*block.Size, block.Size), make(chan struct{})}
			r.Done = r
			s.Submit([]*block.Request{r.Request})
			all = append(all, r)
		}
		time.Sleep(time.Second)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		for _, r := range all {
			if !r.within(time.Second) || r.Err == nil {
				t.Errorf("a read ends with %v", r.Err)
			}
		}
	})
}
