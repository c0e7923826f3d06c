package cs

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
	"pstorage/cs/wire"
	"pstorage/meta/metapb"
)

// pair is a source and a target of rebuilds, both admitted.
type pair struct {
	from, to   *node
	fromF, toF *fakeStream
	fromC, toC *wire.Conn
}

func newPair(t *testing.T) *pair {
	p := &pair{from: startNode(t, 1025), to: startNode(t, 1026)}
	p.fromF, p.toF = p.from.attached(), p.to.attached()
	p.fromC, p.toC = p.from.dial(t, 1), p.to.dial(t, 1)
	return p
}

// same compares what both have of the top layer, and checks it on the way.
func (p *pair) same(t *testing.T, version uint64) {
	t.Helper()
	for block := uint32(0); block < testBlocks; block++ {
		a, b := do(p.fromC, readCall(testChunk, version, block)), do(p.toC, readCall(testChunk, version, block))
		wantStatus(t, a, wire.OK)
		wantStatus(t, b, wire.OK)
		if a.Codes[0] != b.Codes[0] || !bytes.Equal(a.Dst, b.Dst) {
			t.Fatalf("block %d differs: codes %d, %d", block, a.Codes[0], b.Codes[0])
		}
	}
}

func promoteCommand(id chunk.ID, version uint64) *metapb.Command {
	return &metapb.Command{Command: &metapb.Command_Promote{Promote: &metapb.Promote{Chunks: []*metapb.ChunkAt{at(id, version)}}}}
}

func TestAPullMakesAReplicaEqual(t *testing.T) {
	p := newPair(t)
	p.fromF.must(prepareCommand(testChunk, 1, false, 1, 2))
	for i := range uint32(300) {
		wantStatus(t, do(p.fromC, writeCall(testChunk, 1, i, byte(i))), wire.OK)
	}
	zero := &wire.Call{Op: wire.OpZero, Chunk: testChunk, Layer: 2, Epoch: testEpoch, Version: 1, Offset: 10 * 4096, Length: 20 * 4096}
	wantStatus(t, do(p.fromC, zero), wire.OK)
	p.toF.must(prepareCommand(testChunk, 2, true, 1, 2))
	p.fromF.must(raiseCommand(at(testChunk, 2)))
	r := p.toF.must(pullCommand(testChunk, 2, p.from, 1, 2))
	if r.MovedBytes != 280*4096 {
		t.Errorf("moved %d bytes", r.MovedBytes)
	}
	p.toF.must(promoteCommand(testChunk, 2))
	if s := p.to.state(t, testChunk).State; s != store.InSync {
		t.Errorf("state %v", s)
	}
	p.same(t, 2)
}

func TestAPullMovesOnlyWhatDiffers(t *testing.T) {
	p := newPair(t)
	for _, f := range []*fakeStream{p.fromF, p.toF} {
		f.must(prepareCommand(testChunk, 1, false, 1, 2))
	}
	for i := range uint32(200) {
		wantStatus(t, do(p.fromC, writeCall(testChunk, 1, i, byte(i))), wire.OK)
		if i%50 != 0 {
			wantStatus(t, do(p.toC, writeCall(testChunk, 1, i, byte(i))), wire.OK)
		}
	}
	wantStatus(t, do(p.toC, writeCall(testChunk, 1, 300, 1)), wire.OK) // absent in the source
	p.to.engine.Damage(testChunk, 2, 101, store.Sound)                 // same sum, other data
	p.toF.must(prepareCommand(testChunk, 2, true, 1, 2))
	p.fromF.must(raiseCommand(at(testChunk, 2)))
	if r := p.toF.must(pullCommand(testChunk, 2, p.from, 1, 2)); r.MovedBytes != 5*4096 {
		t.Errorf("moved %d bytes", r.MovedBytes)
	}
	p.same(t, 2)
}

func TestWritesDuringAPullAreNotOverwritten(t *testing.T) {
	p := newPair(t)
	p.fromF.must(prepareCommand(testChunk, 1, false, 1, 2))
	for i := range uint32(testBlocks) {
		wantStatus(t, do(p.fromC, writeCall(testChunk, 1, i, 1)), wire.OK)
	}
	p.toF.must(prepareCommand(testChunk, 2, true, 1, 2))
	p.fromF.must(raiseCommand(at(testChunk, 2)))
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range uint32(2000) {
			block := i * 7 % testBlocks
			for _, c := range []*wire.Conn{p.fromC, p.toC} {
				if call := do(c, writeCall(testChunk, 2, block, byte(i))); call.Err != nil || call.Status != wire.OK {
					t.Errorf("%v %v", call.Status, call.Err)
				}
			}
		}
	})
	p.toF.must(pullCommand(testChunk, 2, p.from, 1, 2))
	wg.Wait()
	p.same(t, 2)
}

func TestAPullIsCancelled(t *testing.T) {
	p := newPair(t)
	p.fromF.must(prepareCommand(testChunk, 1, false, 1, 2))
	p.toF.must(prepareCommand(testChunk, 1, true, 1, 2))
	asked, open := make(chan struct{}, 100), make(chan struct{})
	p.from.engine.SetSlow(func(string) { asked <- struct{}{}; <-open })
	defer close(open)
	pull := p.toF.command(pullCommand(testChunk, 1, p.from, 1, 2))
	<-asked
	cancel := p.toF.command(&metapb.Command{Command: &metapb.Command_Cancel{Cancel: &metapb.CancelPull{Chunk: at(testChunk, 1)}}})
	if r := <-p.toF.result; r.Id != pull || !strings.Contains(r.Error, errCancelled.Error()) {
		t.Errorf("%v", r)
	}
	if r := <-p.toF.result; r.Id != cancel || r.Error != "" {
		t.Errorf("%v", r)
	}
	if s := p.to.state(t, testChunk).State; s != store.Syncing {
		t.Errorf("state %v", s)
	}
}

func TestAFailedPullSaysWhy(t *testing.T) {
	p := newPair(t)
	p.toF.must(prepareCommand(testChunk, 2, true, 1, 2))
	if r := p.toF.do(pullCommand(testChunk, 2, p.from, 1, 2)); !strings.Contains(r.Error, wire.NoChunk.String()) {
		t.Errorf("no chunk at the source: %v", r)
	}
	p.fromF.must(prepareCommand(testChunk, 1, false, 1, 2))
	if r := p.toF.do(pullCommand(testChunk, 2, p.from, 1, 2)); !strings.Contains(r.Error, wire.StaleVersion.String()) {
		t.Errorf("older version at the source: %v", r)
	}
	wantStatus(t, do(p.fromC, writeCall(testChunk, 1, 7, 1)), wire.OK)
	p.fromF.must(raiseCommand(at(testChunk, 2)))
	p.from.engine.Damage(testChunk, 2, 7, store.Sound)
	if r := p.toF.do(pullCommand(testChunk, 2, p.from, 1, 2)); !strings.Contains(r.Error, "block 7 of the source") || !r.SourceCorrupt {
		t.Errorf("damage at the source: %v", r)
	}
	if err := p.from.Close(); err != nil {
		t.Fatal(err)
	}
	if r := p.toF.do(pullCommand(testChunk, 2, p.from, 1, 2)); r.Error == "" {
		t.Error("nobody at the source's address, and no error")
	}
}

func TestDetachingEndsPulls(t *testing.T) {
	p := newPair(t)
	p.fromF.must(prepareCommand(testChunk, 1, false, 1, 2))
	p.toF.must(prepareCommand(testChunk, 1, true, 1, 2))
	asked, open := make(chan struct{}, 100), make(chan struct{})
	p.from.engine.SetSlow(func(string) { asked <- struct{}{}; <-open })
	p.toF.command(pullCommand(testChunk, 1, p.from, 1, 2))
	<-asked
	p.toF.end <- nil
	f, _, _ := p.to.mds.introduced()
	close(open)
	// Still syncing: in the middle of a run, the admission alone does not make it a member.
	f.admit(&metapb.Admission{Raise: []*metapb.ChunkAt{at(testChunk, 1)}})
	<-f.beats
	if s := p.to.state(t, testChunk).State; s != store.Syncing {
		t.Errorf("state %v", s)
	}
	f.must(pullCommand(testChunk, 1, p.from, 1, 2))
	f.end <- nil
	// Pulled completely, and a member: the Promote got lost.
	p.to.attached()
	if s := p.to.state(t, testChunk).State; s != store.InSync {
		t.Errorf("state %v", s)
	}
}

func TestALostPromoteIsMadeUpForWhenOthersHaveLeftSince(t *testing.T) {
	p := newPair(t)
	p.fromF.must(prepareCommand(testChunk, 1, false, 1, 2))
	p.toF.must(prepareCommand(testChunk, 1, true, 1, 2))
	p.toF.must(pullCommand(testChunk, 1, p.from, 1, 2))
	p.toF.end <- nil
	f, _, _ := p.to.mds.introduced()
	f.admit(&metapb.Admission{Raise: []*metapb.ChunkAt{at(testChunk, 3)}})
	<-f.beats
	if s := p.to.state(t, testChunk).State; s != store.InSync {
		t.Errorf("state %v", s)
	}
}

func TestASourceThatDoesNotAnswerEndsOnlyItsPull(t *testing.T) {
	p := newPair(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and is closed
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			nc.Close()
		}
	}()
	defer l.Close()
	p.fromF.must(prepareCommand(testChunk, 1, false, 1, 2))
	p.toF.must(prepareCommand(testChunk, 1, true, 1, 2))
	bad := pullCommand(testChunk, 1, p.from, 1, 2)
	bad.GetPull().SourceAddress = l.Addr().String()
	if r := p.toF.do(bad); r.Error == "" {
		t.Error("worked")
	}
	p.toF.must(pullCommand(testChunk, 1, p.from, 1, 2))
}

func TestAbsolveTakesBlocksThatDoNotVerifyFromOthers(t *testing.T) {
	p := newPair(t)
	for i, f := range []*fakeStream{p.fromF, p.toF} {
		f.must(prepareCommand(testChunk, 1, false, 1, 2))
		c := []*wire.Conn{p.fromC, p.toC}[i]
		wantStatus(t, do(c, writeCall(testChunk, 1, 3, 9)), wire.OK)
		wantStatus(t, do(c, writeCall(testChunk, 1, 4, 9)), wire.OK)
	}
	p.to.engine.Damage(testChunk, 2, 3, store.ProcessDied)
	p.from.engine.Damage(testChunk, 2, 4, store.ProcessDied) // elsewhere, and as suspect
	wantStatus(t, do(p.toC, readCall(testChunk, 1, 3)), wire.Suspect)
	absolve := &metapb.Command{Command: &metapb.Command_Absolve{Absolve: &metapb.Absolve{Chunk: at(testChunk, 2),
		Others: []string{"127.0.0.1:1", p.from.Addr()}}}}
	p.toF.must(absolve)
	for block := range uint32(5) {
		wantStatus(t, do(p.toC, readCall(testChunk, 2, block)), wire.OK)
	}
}

func TestPullsAreLimitedInNumberAndSpeed(t *testing.T) {
	l := limiter{}
	if err := l.wait(context.Background(), 1<<40); err != nil || !l.next.IsZero() {
		t.Errorf("no limit: %v, %v", err, l.next)
	}
	l.rate = 1 << 20
	if err := l.wait(context.Background(), 1<<20); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(errCancelled)
	if err := l.wait(ctx, 1); err != errCancelled { // a second is due
		t.Errorf("%v", err)
	}

	p := newPulls(2)
	began, open := make(chan struct{}, 5), make(chan struct{})
	for i := range uint32(5) {
		err := p.start(context.Background(), chunk.ID{File: 1, Index: i}, 1, func(ctx context.Context) {
			free, err := p.slots.take(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			defer free()
			began <- struct{}{}
			<-open
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	<-began
	<-began
	if len(p.slots) != 2 || len(began) != 0 {
		t.Errorf("%d run, %d more began", len(p.slots), len(began))
	}
	close(open)
	p.wg.Wait()
	if len(began) != 3 || len(p.running) != 0 {
		t.Errorf("%d more began, %d still there", len(began), len(p.running))
	}
}

// Else all would pull, then all sync, and the disk would be idle half of the time.
func TestRebuildsPullWhileOthersSync(t *testing.T) {
	const rebuilds, syncs = 2 * DefaultPullStreams, DefaultPullStreams / 2
	p := newPair(t)
	pulled, syncing, open := make(chan struct{}, rebuilds), make(chan struct{}, rebuilds), make(chan struct{})
	p.to.engine.SetSlow(func(method string) {
		switch method {
		case "Pull":
			pulled <- struct{}{}
		case "SyncReplica":
			syncing <- struct{}{}
			<-open
		}
	})
	for i := range uint32(rebuilds) {
		id := chunk.ID{File: testChunk.File, Index: i}
		p.fromF.must(prepareCommand(id, 1, false, 1, 2))
		wantStatus(t, do(p.fromC, writeCall(id, 1, 3, 7)), wire.OK)
		p.toF.must(prepareCommand(id, 1, true, 1, 2))
	}
	for i := range uint32(rebuilds) {
		p.toF.command(pullCommand(chunk.ID{File: testChunk.File, Index: i}, 1, p.from, 1, 2))
	}
	for range syncs {
		<-syncing
	}
	for range syncs + DefaultPullStreams {
		<-pulled
	}
	if s := p.to.pulls; len(s.slots) != DefaultPullStreams || len(s.syncs) != syncs || len(pulled) > 0 || len(syncing) > 0 {
		t.Errorf("%d pull, %d sync, %d and %d more have begun", len(s.slots), len(s.syncs), len(pulled), len(syncing))
	}
	close(open)
	for range rebuilds {
		if r := <-p.toF.result; r.Error != "" {
			t.Error(r)
		}
	}
}
