package cs

import (
	"testing"

	"pstorage/cs/store"
	"pstorage/cs/wire"
	"pstorage/meta/metapb"
)

func verifyCommand(due uint32, chunks ...*metapb.ChunkAt) *metapb.Command {
	return &metapb.Command{Command: &metapb.Command_Verify{Verify: &metapb.Verify{Due: due, Chunks: chunks}}}
}

func mendCommand(others ...string) *metapb.Command {
	return &metapb.Command{Command: &metapb.Command_Mend{Mend: &metapb.Mend{Chunk: at(testChunk, 1), Others: others}}}
}

// scrubbed takes what is told last.
func (f *fakeStream) scrubbed() (last *metapb.Scrubbed) {
	last = <-f.scrubs
	for len(f.scrubs) > 0 {
		last = <-f.scrubs
	}
	return last
}

func TestVerificationsAreCountedAndTold(t *testing.T) {
	n := startNode(t, 1025)
	f := n.attached()
	if s := <-f.scrubs; len(s.Files) != 0 || s.Total.Replicas != 0 {
		t.Errorf("at first: %v", s)
	}
	f.must(prepareCommand(testChunk, 1, false, 2))
	c := n.dial(t, 1)
	wantStatus(t, do(c, writeCall(testChunk, 1, 3, 9)), wire.OK)
	f.must(verifyCommand(5))
	s := f.scrubbed()
	if s.Total.Replicas != 1 || s.Total.Bad != 0 || len(s.Files) != 1 || s.Files[0].File != testChunk.File || s.Files[0].Never != 1 {
		t.Errorf("%v", s)
	}
	n.engine.Damage(testChunk, 2, 3, store.Sound)
	f.must(verifyCommand(0, at(testChunk, 0), &metapb.ChunkAt{File: 99})) // one that is not here is left out
	if s = f.scrubbed(); s.Total.Replicas != 2 || s.Total.Bad != 1 || len(s.Files) != 0 {
		t.Errorf("%v", s)
	}
	if r := f.do(verifyCommand(maxVerify + 1)); r.Error == "" {
		t.Error("no limit")
	}
	f.must(&metapb.Command{Command: &metapb.Command_Remove{Remove: &metapb.Remove{Chunks: []*metapb.ChunkAt{at(testChunk, 1)}}}})
	f.must(verifyCommand(1))
	if s = f.scrubbed(); len(s.Files) != 1 || s.Files[0].Never != 0 || s.Files[0].OldestUnix != 0 {
		t.Errorf("a file of which nothing is left: %v", s)
	}
}

func TestABadReplicaIsMendedFromOthers(t *testing.T) {
	p := newPair(t)
	for i, f := range []*fakeStream{p.fromF, p.toF} {
		f.must(prepareCommand(testChunk, 1, false, 1, 2))
		c := []*wire.Conn{p.fromC, p.toC}[i]
		for block := range uint32(6) {
			wantStatus(t, do(c, writeCall(testChunk, 1, block, 9)), wire.OK)
		}
	}
	p.to.engine.Damage(testChunk, 2, 3, store.Sound)
	p.from.engine.Damage(testChunk, 2, 4, store.Sound)
	p.to.onTrouble(testChunk, "block 3", true)
	if r := p.toF.do(mendCommand("127.0.0.1:1")); r.Error == "" {
		t.Error("mended by nobody")
	}
	p.toF.must(mendCommand("127.0.0.1:1", p.from.Addr()))
	p.fromF.must(mendCommand(p.to.Addr()))
	p.same(t, 1)
	p.to.mu.Lock()
	defer p.to.mu.Unlock()
	if len(p.to.troubles) > 0 {
		t.Errorf("it still counts as bad: %v", p.to.troubles)
	}
}

// On disks: a replica that is bad is reported, and kept for inspection when it has to go; a reader's finding as well.
func TestBadReplicasOnDiskAreReportedAndKept(t *testing.T) {
	n := create(t, 1025)
	f := n.attached()
	f.must(prepareCommand(testChunk, 1, false, 2))
	c := n.dial(t, 1)
	wantStatus(t, do(c, writeCall(testChunk, 1, 3, 9)), wire.OK)
	bad := at(testChunk, 1)
	bad.Corrupt = true
	f.must(&metapb.Command{Command: &metapb.Command_Demote{Demote: &metapb.Demote{Chunks: []*metapb.ChunkAt{bad}}}})
	f.must(&metapb.Command{Command: &metapb.Command_Remove{Remove: &metapb.Remove{Chunks: []*metapb.ChunkAt{bad}}}})
	if kept := n.quarantined(t); kept != 1 {
		t.Errorf("%d files set aside", kept)
	}
}
