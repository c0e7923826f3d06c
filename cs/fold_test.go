package cs

import (
	"bytes"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/wire"
	"pstorage/meta/metapb"
)

func foldCommand(layer, into uint32) *metapb.Command {
	return &metapb.Command{Command: &metapb.Command_Fold{Fold: &metapb.Fold{File: testChunk.File, Layer: layer, Into: into, BytesPerSecond: 64 << 20}}}
}

// inLayer is the call in another layer.
func inLayer(c *wire.Call, layer uint32) *wire.Call {
	c.Layer = layer
	return c
}

// frozen reads a block of a layer without the lease.
func frozen(block, layer uint32) *wire.Call {
	c := inLayer(readCall(testChunk, 1, block), layer)
	c.Flags, c.Epoch = wire.FlagFrozen, 0
	return c
}

// since asks what was written to a block after one layer was frozen and before another was.
func since(block, from, to uint32) *wire.Call {
	c := frozen(block, to)
	c.Op, c.Epoch, c.Dst = wire.OpTableLayer, uint64(to-from-1), nil
	return c
}

// What was written between two layers is told whatever was merged below, between and above them, until the older one is.
func TestWhatWasWrittenBetweenLayersIsTold(t *testing.T) {
	n := create(t, 1025)
	f := n.attached()
	f.must(prepareCommand(testChunk, 1, false, 1))
	c := n.dial(t, 1)
	for layer := uint32(1); layer <= 7; layer++ {
		wantStatus(t, do(c, inLayer(writeCall(testChunk, 1, layer, byte(layer)), layer)), wire.OK)
	}
	check := func(when string, from, to uint32) {
		for block := uint32(1); block <= 7; block++ {
			call := do(c, since(block, from, to))
			if wantStatus(t, call, wire.OK); (call.Codes[0] != chunk.Absent) != (from < block && block <= to) {
				t.Errorf("%s: block %d, between layers %d and %d: code %d", when, block, from, to, call.Codes[0])
			}
		}
	}
	check("at first", 2, 5)
	for _, step := range []struct {
		when        string
		layer, into uint32
	}{{"one below merged", 1, 2}, {"one between merged", 3, 4}, {"another between", 4, 5}, {"one above", 6, 7}} {
		f.must(foldCommand(step.layer, step.into))
		check(step.when, 2, 5)
	}
	wantStatus(t, do(c, since(1, 2, 3)), wire.NoLayer)
	wantStatus(t, do(c, since(1, 4, 5)), wire.NoLayer)
	f.must(foldCommand(2, 5))
	wantStatus(t, do(c, since(1, 2, 5)), wire.NoLayer)
}

func TestALayerThatIsMergedIsNotReadAnyMore(t *testing.T) {
	n := create(t, 1025)
	f := n.attached()
	others := []chunk.ID{testChunk, {File: testChunk.File, Index: 9}}
	for _, id := range others {
		f.must(prepareCommand(id, 1, false, 1))
	}
	c := n.dial(t, 1)
	for block := range uint32(20) {
		wantStatus(t, do(c, inLayer(writeCall(testChunk, 1, block, 1), 1)), wire.OK)
	}
	for block := range uint32(5) {
		wantStatus(t, do(c, writeCall(testChunk, 1, block, 2)), wire.OK)
	}
	wantStatus(t, do(c, frozen(1, 1)), wire.OK)
	f.must(foldCommand(1, 2))
	wantStatus(t, do(c, frozen(1, 1)), wire.NoLayer)
	wantStatus(t, do(c, inLayer(writeCall(testChunk, 1, 1, 3), 1)), wire.NoLayer)
	for block := range uint32(20) {
		fill := byte(1)
		if block < 5 {
			fill = 2
		}
		for _, read := range []*wire.Call{readCall(testChunk, 1, block), frozen(block, 2)} {
			wantStatus(t, do(c, read), wire.OK)
			if !bytes.Equal(read.Dst, writeCall(testChunk, 1, block, fill).Data) {
				t.Errorf("block %d differs", block)
			}
		}
	}
	f.must(foldCommand(1, 2))
	if n.count.folded.Load() != uint64(len(others)) {
		t.Errorf("%d replicas were folded", n.count.folded.Load())
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	n.open(t)
	f = n.attached()
	c = n.dial(t, 2)
	wantStatus(t, do(c, frozen(1, 1)), wire.NoLayer)
	f.must(foldCommand(1, 2))
}

func TestAFoldIsAnsweredWhereNothingIs(t *testing.T) {
	n := create(t, 1025)
	f := n.attached()
	f.must(foldCommand(1, 2))
	if r := f.do(foldCommand(2, 2)); r.Error == "" {
		t.Error("a layer is merged into itself")
	}
	f.must(prepareCommand(testChunk, 1, false, 2))
	wantStatus(t, do(n.dial(t, 1), frozen(1, 1)), wire.NoLayer)
}

func TestALayerThatIsDiscardedLeavesWhatIsBelow(t *testing.T) {
	n := create(t, 1025)
	f := n.attached()
	f.must(prepareCommand(testChunk, 1, false, 1))
	c := n.dial(t, 1)
	wantStatus(t, do(c, inLayer(writeCall(testChunk, 1, 3, 1), 1)), wire.OK)
	wantStatus(t, do(c, writeCall(testChunk, 1, 3, 2)), wire.OK)
	discard := foldCommand(2, 0)
	discard.GetFold().Discard = true
	for range 2 {
		f.must(discard)
	}
	wantStatus(t, do(c, frozen(3, 2)), wire.NoLayer)
	wantStatus(t, do(c, writeCall(testChunk, 1, 3, 3)), wire.NoLayer)
	read := frozen(3, 1)
	wantStatus(t, do(c, read), wire.OK)
	if !bytes.Equal(read.Dst, writeCall(testChunk, 1, 3, 1).Data) {
		t.Error("what is below differs")
	}
}

// A replica that is being rebuilt is folded when it is in sync, and until then the command is not answered. Whether source or target has merged the layer
// before makes no difference.
func TestAFoldWaitsForARebuild(t *testing.T) {
	for name, sourceFirst := range map[string]bool{"source first": true, "target first": false} {
		t.Run(name, func(t *testing.T) {
			p := &pair{from: create(t, 1025), to: create(t, 1026)}
			p.fromF, p.toF = p.from.attached(), p.to.attached()
			p.fromC, p.toC = p.from.dial(t, 1), p.to.dial(t, 1)
			p.fromF.must(prepareCommand(testChunk, 1, false, 1))
			for block := range uint32(60) {
				wantStatus(t, do(p.fromC, inLayer(writeCall(testChunk, 1, block, 1), 1)), wire.OK)
			}
			for block := range uint32(9) {
				wantStatus(t, do(p.fromC, writeCall(testChunk, 1, block, 2)), wire.OK)
			}
			p.toF.must(prepareCommand(testChunk, 1, false, 1))
			wantStatus(t, do(p.toC, inLayer(writeCall(testChunk, 1, 7, 1), 1)), wire.OK)
			p.toF.must(prepareCommand(testChunk, 2, true, 1, 2))
			p.fromF.must(raiseCommand(at(testChunk, 2)))
			if sourceFirst {
				p.fromF.must(foldCommand(1, 2))
			}
			fold := p.toF.command(foldCommand(1, 2))
			p.toF.must(prepareCommand(chunk.ID{File: testChunk.File, Index: 99}, 1, false, 1, 2)) // the fold has begun, and is not over
			p.toF.must(pullCommand(testChunk, 2, p.from, 1, 2))
			p.toF.must(promoteCommand(testChunk, 2))
			if r := <-p.toF.result; r.Id != fold || r.Error != "" {
				t.Errorf("%v", r)
			}
			p.same(t, 2)
			p.fromF.must(foldCommand(1, 2))
			p.same(t, 2)
		})
	}
}
