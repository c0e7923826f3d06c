package blockstore

import (
	"errors"
	"testing"
	"testing/synctest"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs/wire"
)

// losesBlock makes all servers answer as if they had lost a block, until it is written as a whole. It counts what they refuse.
func (k *cluster) losesBlock(no uint32) (refused *int) {
	refused = new(int)
	for _, s := range k.servers {
		lost := true
		s.set(func() {
			s.fail = func(w *wire.Call) wire.Status {
				first, last := w.Offset/block.Size, (w.Offset+max(w.Length, 1)-1)/block.Size
				whole := w.Offset <= no*block.Size && w.Offset+w.Length >= (no+1)*block.Size
				switch {
				case !lost || w.Op != wire.OpRead && w.Op != wire.OpWrite && w.Op != wire.OpZero || no < first || no > last:
				case w.Op != wire.OpRead && whole:
					lost = false
				default:
					*refused++
					w.Aux0 = uint64(no)
					return wire.Lost
				}
				return wire.OK
			}
		})
	}
	return refused
}

// A lost block fails what needs what it was, at once, and nothing else; no replica is blamed. It is good again when all of it is written.
func TestLostBlockFailsWhatNeedsIt(t *testing.T) {
	for name, mend := range map[string]*block.Request{
		"written": blocktest.Write(block.Size, make([]byte, block.Size)),
		"zeroed":  blocktest.Zero(block.WriteZeroes, block.Size, block.Size),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newCluster(3, testSize, 3, 2)
				v := k.open(t, OpenOptions{})
				defer k.end(v)
				blocktest.Do(v, blocktest.Write(0, make([]byte, 4*block.Size)))
				refused := k.losesBlock(1)
				for _, r := range []*block.Request{
					blocktest.Read(block.Size, block.Size), blocktest.Read(block.Size+512, 512), blocktest.Read(0, 4*block.Size),
					blocktest.Write(block.Size+512, make([]byte, 512)), blocktest.Write(512, make([]byte, block.Size)),
					blocktest.Zero(block.Discard, block.Size+512, 512),
				} {
					*refused = 0
					if blocktest.Do(v, r); !errors.Is(r.Err, block.ErrLostData) || *refused > len(k.servers) {
						t.Errorf("%v of %d bytes at %d: %v, refused %d times", r.Op, r.Length, r.Offset, r.Err, *refused)
					}
				}
				for _, r := range []*block.Request{blocktest.Read(0, block.Size), blocktest.Read(2*block.Size, 2*block.Size),
					blocktest.Write(2*block.Size+512, make([]byte, 512)), mend, blocktest.Read(0, 4*block.Size)} {
					if blocktest.Do(v, r); r.Err != nil {
						t.Errorf("%v of %d bytes at %d: %v", r.Op, r.Length, r.Offset, r.Err)
					}
				}
				if n := len(k.insync(0)); n != 3 {
					t.Errorf("%d replicas are in sync", n)
				}
			})
		})
	}
}
