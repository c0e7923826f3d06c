package cs

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
	"pstorage/cs/wire"
	"pstorage/meta/metapb"
)

// create makes a chunk server with a store on disk and starts it.
func create(t *testing.T, id uint32) *node {
	t.Helper()
	n := &node{mds: newFakeMDS(t), dir: t.TempDir()}
	got, err := Create(context.Background(), CreateOptions{Dir: n.dir, Host: "h1", Meta: fakeRegistry{cluster: "pcs1", id: id}})
	if err != nil || got != id {
		t.Fatalf("%d, %v", got, err)
	}
	n.open(t)
	return n
}

func (n *node) open(t *testing.T) {
	t.Helper()
	var err error
	n.Server, err = Start(context.Background(), Config{Dir: n.dir, Address: "127.0.0.1:0", Meta: n.mds.client})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestAReplicaOnDiskIsRebuiltWhileItIsWritten(t *testing.T) {
	p := &pair{from: create(t, 1025), to: create(t, 1026)}
	p.fromF, p.toF = p.from.attached(), p.to.attached()
	p.fromC, p.toC = p.from.dial(t, 1), p.to.dial(t, 1)
	p.fromF.must(prepareCommand(testChunk, 1, false, 1, 2))
	for i := range uint32(testBlocks) {
		wantStatus(t, do(p.fromC, writeCall(testChunk, 1, i, byte(i))), wire.OK)
	}
	p.toF.must(prepareCommand(testChunk, 2, true, 1, 2))
	p.fromF.must(raiseCommand(at(testChunk, 2)))
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range uint32(500) {
			for _, c := range []*wire.Conn{p.fromC, p.toC} {
				if call := do(c, writeCall(testChunk, 2, i*7%testBlocks, byte(i))); call.Err != nil || call.Status != wire.OK {
					t.Errorf("%v %v", call.Status, call.Err)
				}
			}
		}
	})
	p.toF.must(pullCommand(testChunk, 2, p.from, 1, 2))
	wg.Wait()
	p.toF.must(promoteCommand(testChunk, 2))
	p.same(t, 2)

	if err := p.to.Close(); err != nil {
		t.Fatal(err)
	}
	p.to.open(t)
	f, _, inventory := p.to.mds.introduced()
	if len(inventory) != 1 || inventory[0].Version != 2 || inventory[0].State != uint32(store.InSync) {
		t.Errorf("after a restart: %v", inventory)
	}
	f.admit(&metapb.Admission{Raise: []*metapb.ChunkAt{at(testChunk, 3)}})
	<-f.beats
	p.toC = p.to.dial(t, 2)
	p.fromF.must(raiseCommand(at(testChunk, 3)))
	p.same(t, 3)
}

func TestWritesToDiskSurviveARestart(t *testing.T) {
	n := create(t, 1025)
	f := n.attached()
	ids := []chunk.ID{testChunk, {File: 1040, Index: 1}}
	for _, id := range ids {
		f.must(prepareCommand(id, 1, false, 1, 2))
	}
	c := n.dial(t, 1)
	for i := range uint32(64) {
		for _, id := range ids {
			wantStatus(t, do(c, writeCall(id, 1, i*3, byte(i))), wire.OK)
		}
	}
	wantStatus(t, do(c, &wire.Call{Op: wire.OpFlush, Chunk: testChunk, Epoch: testEpoch}), wire.OK)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n.open(t)
	n.attached()
	c = n.dial(t, 2)
	for i := range uint32(64) {
		for _, id := range ids {
			call := do(c, readCall(id, 1, i*3))
			wantStatus(t, call, wire.OK)
			if !bytes.Equal(call.Dst, writeCall(id, 1, i*3, byte(i)).Data) {
				t.Fatalf("block %d of %v differs", i*3, id)
			}
		}
	}
}

// quarantined counts the files that the node has set aside.
func (n *node) quarantined(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(n.dir, storeName, "quarantine"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return len(entries)
}
