package fsm

import (
	"errors"
	"testing"

	"pstorage/meta/fsm/fsmpb"
)

func TestAServerIsDroppedOnlyWhenNothingCountsOnIt(t *testing.T) {
	b, f := opened(t, 4, 2)
	drop := &fsmpb.DropServer{Id: firstServer}
	if _, err := b.do(drop); !errors.Is(err, ErrConflict) {
		t.Fatalf("not released: %v, want ErrConflict", err)
	}
	mustDo(t, b, &fsmpb.ReleaseServer{Id: firstServer})
	if _, err := b.do(drop); !errors.Is(err, ErrConflict) {
		t.Fatalf("with replicas: %v, want ErrConflict", err)
	}
	for i := range uint32(2) {
		c := b.chunkOf(t, f.ID, i)
		mustDo(t, b, &fsmpb.Alter{Files: []*fsmpb.FileChanges{{File: f.ID, Changes: []*fsmpb.Change{{Index: i, Version: c.Version, Drop: []uint32{firstServer}}}}}})
	}
	mustDo(t, b, drop)
	b.check(t)
}

// A number that was dropped is nobody's any more: it does not register, is released or dropped again, becomes a member, or gathers garbage.
func TestADroppedServerIsNoPartOfAnything(t *testing.T) {
	b, f := opened(t, 4, 1)
	mustDo(t, b, &fsmpb.DropServer{Id: firstServer, Force: true})
	mustDo(t, b, &fsmpb.DropServer{Id: firstServer + 3, Force: true})
	for _, c := range []any{&fsmpb.UpdateServer{Id: firstServer}, &fsmpb.ReleaseServer{Id: firstServer}, &fsmpb.DropServer{Id: firstServer, Force: true}} {
		if _, err := b.do(c); !errors.Is(err, ErrDropped) {
			t.Errorf("%T: %v, want ErrDropped", c, err)
		}
	}
	c := b.chunkOf(t, f.ID, 0)
	r := must[*Altered](t, b, &fsmpb.Alter{Files: []*fsmpb.FileChanges{{File: f.ID, Changes: []*fsmpb.Change{{Version: c.Version, Syncing: []uint32{firstServer + 3}}}}}})
	if !errors.Is(r.Outcomes[0].Err, ErrDropped) {
		t.Errorf("it becomes a rebuild's target: %v", r.Outcomes[0].Err)
	}
	r = must[*Altered](t, b, &fsmpb.Allocate{File: f.ID, Epoch: 1, Client: alice, Chunks: []*fsmpb.NewChunk{{Index: 1, Servers: []uint32{firstServer}}}})
	if !errors.Is(r.Outcomes[0].Err, ErrDropped) {
		t.Errorf("it gets a new chunk: %v", r.Outcomes[0].Err)
	}
	mustDo(t, b, &fsmpb.RemoveNode{Path: f.Path, Force: true, Epoch: 1})
	if err := b.View(func(v *View) error {
		v.Garbage(firstServer, func(*Block) bool { t.Error("it has garbage"); return false })
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	b.check(t)
}

// What was being rebuilt onto a server that is dropped meanwhile does not become in-sync.
func TestADroppedServerIsNotPromoted(t *testing.T) {
	b, f := opened(t, 4, 1)
	mustDo(t, b, &fsmpb.Settled{File: f.ID, Epoch: 1, Client: alice})
	c := b.chunkOf(t, f.ID, 0)
	mustDo(t, b, &fsmpb.Alter{Files: []*fsmpb.FileChanges{{File: f.ID, Changes: []*fsmpb.Change{{Version: c.Version, Syncing: []uint32{firstServer + 3}}}}}})
	mustDo(t, b, &fsmpb.DropServer{Id: firstServer + 3, Force: true})
	c = b.chunkOf(t, f.ID, 0)
	r := must[*Altered](t, b, &fsmpb.Alter{Files: []*fsmpb.FileChanges{{File: f.ID, Changes: []*fsmpb.Change{{Version: c.Version, Promote: []uint32{firstServer + 3}}}}}})
	if !errors.Is(r.Outcomes[0].Err, ErrDropped) {
		t.Errorf("%v, want ErrDropped", r.Outcomes[0].Err)
	}
}

func TestServersAreChecked(t *testing.T) {
	b, _ := opened(t, 1, 0)
	for _, c := range []*fsmpb.CreateServer{{Tier: Tiers}, {Location: "1.2"}, {Host: string(make([]byte, MaxHost+1))}} {
		if _, err := b.do(c); !errors.Is(err, ErrInvalid) {
			t.Errorf("%v: %v, want ErrInvalid", c, err)
		}
	}
}

func mustDo(t *testing.T, b *bench, c any) {
	t.Helper()
	if _, err := b.do(c); err != nil {
		t.Fatal(err)
	}
}

func (b *bench) chunkOf(t *testing.T, file uint64, index uint32) (c Chunk) {
	t.Helper()
	if err := b.View(func(v *View) error {
		if !v.Chunk(ChunkKey{file, index}, &c) {
			t.Fatalf("no chunk %d", index)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return c
}
