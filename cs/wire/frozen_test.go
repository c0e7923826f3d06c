package wire

import (
	"bytes"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
)

func TestFrozenLayersAreReadWithoutTheLease(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial(Hello{})
	data := random(3, 4096)
	must(t, c, writeCall(4096, data))
	for layer, want := range map[uint32][]byte{1: make([]byte, 4096), 2: data} {
		for _, epoch := range []uint64{0, 2, 9} {
			read := newCall(OpRead, 4096, 4096)
			read.Flags, read.Layer, read.Epoch = FlagFrozen, layer, epoch
			if must(t, c, read); !bytes.Equal(read.Dst, want) {
				t.Errorf("epoch %d: layer %d differs", epoch, layer)
			}
			table := newCall(OpTable, 4096, 4096)
			table.Flags, table.Layer, table.Epoch = FlagFrozen, layer, epoch
			if must(t, c, table); chunk.HasData(table.Codes[0]) != (layer == 2) {
				t.Errorf("epoch %d: layer %d has code %d", epoch, layer, table.Codes[0])
			}
		}
	}
	for below, has := range map[uint64]bool{0: true, 1: true} {
		alone := newCall(OpTableLayer, 4096, 4096)
		alone.Flags, alone.Layer, alone.Epoch = FlagFrozen, 2, below
		if must(t, c, alone); chunk.HasData(alone.Codes[0]) != has {
			t.Errorf("layer 2 with %d below has code %d", below, alone.Codes[0])
		}
	}
	old := newCall(OpRead, 0, 4096)
	old.Flags, old.Version = FlagFrozen, 4
	if do(c, old); old.Status != StaleVersion || old.Aux0 != 5 {
		t.Errorf("a read at another version: %v", old.Status)
	}
}

func TestWhatIsFrozenIsOnlyRead(t *testing.T) {
	f := newFixture(t, nil)
	c, p := f.dial(Hello{}), f.dial(Hello{Peer: true})
	for _, call := range []*Call{writeCall(0, random(1, 4096)), newCall(OpZero, 0, 4096), newCall(OpFlush, 0, 0), newCall(OpFence, 0, 0),
		newCall(OpSettle, 0, 0), newCall(OpAtomic, 0, 4096)} {
		call.Flags = FlagFrozen
		if call.Op == OpAtomic {
			call.Sums = []uint32{chunk.Zeros}
		}
		if do(c, call); call.Status != BadRequest {
			t.Errorf("%v of a frozen layer: %v", call.Op, call.Status)
		}
	}
	read := newCall(OpRead, 0, 4096)
	read.Flags = FlagFrozen | FlagPeer
	if do(p, read); read.Status != BadRequest {
		t.Errorf("a peer's read of a frozen layer: %v", read.Status)
	}
	for _, own := range []*Call{newCall(OpTableLayer, 0, 4096), newCall(OpReadLayer, 0, 4096)} {
		if own.Op == OpReadLayer {
			own.Flags = FlagFrozen
		}
		if do(c, own); own.Status != BadRequest {
			t.Errorf("%v of a client: %v", own.Op, own.Status)
		}
	}
	if s, _ := statusOf(&store.ChunkError{ID: testChunk, Err: store.ErrNoLayer}); s != NoLayer || s.String() != "no layer" {
		t.Errorf("a layer that is gone: %v", s)
	}
}
