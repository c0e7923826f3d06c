package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/blockstore"
	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs/store"
	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
)

// Snapshots are taken while clients write and things fail, read soon after, and again in the end. What a sector shows in one is judged as a read at some moment while it
// was taken, that is flushed then (history.go): what was acknowledged before must be there whatever loses power, nothing later may be. And it never changes.

const (
	shotGap     = 8 * time.Second  // at most, between two snapshots
	shotTimeout = 15 * time.Second // of taking one
	shotHost    = 70               // numbers of machines that read snapshots begin there
)

// shot is a snapshot that was taken.
type shot struct {
	v    *volume
	name string
	id   []byte
	call int64              // clock
	ret  atomic.Int64       // when it was known to be taken; not yet shown perhaps
	seen map[int64][]uint64 // values, by the first sector of a block
	size atomic.Int64       // known once it has been read
}

// takeSnapshots takes and reads snapshots until the workload ends.
func (s *Sim) takeSnapshots() {
	r := rand.New(rand.NewPCG(s.options.Seed, 7))
	for {
		s.pause(time.Duration(r.Int64N(int64(shotGap))))
		if s.stopping() {
			return
		}
		v := s.chooseVolume(r)
		if v.clone && v.number%2 == 0 { // it may be flattened
			continue
		}
		sn, err := s.takeSnapshot(v)
		if err == nil && r.IntN(2) == 0 {
			err = s.readSnapshot(sn, "")
		}
		if err != nil {
			s.trace.logf("snapper", "%v", err)
		}
	}
}

// takeSnapshot takes a snapshot of a volume, if somebody has it open and can hold it.
func (s *Sim) takeSnapshot(v *volume) (*shot, error) {
	m, err := s.metaClient("admin")
	if err != nil {
		return nil, err
	}
	defer m.Close()
	s.mu.Lock()
	s.shotNumber++
	n := s.shotNumber
	s.mu.Unlock()
	sn := &shot{v: v, name: fmt.Sprintf("s%d", n), id: append(make([]byte, 15), byte(n)), seen: map[int64][]uint64{}}
	ctx, cancel := context.WithTimeout(context.Background(), shotTimeout)
	defer cancel()
	s.trace.logf("snapper", "takes %s of volume %d", sn.name, v.number)
	sn.call = s.history.tick()
	s.shooting.Store(sn, nil)
	defer s.shooting.Delete(sn)
	for flushing := true; flushing; {
		_, err = m.Snapshot(ctx, &metapb.SnapshotRequest{Paths: []string{v.path}, Ids: [][]byte{sn.id}, Name: sn.name})
		flushing = status.Code(err) == codes.Aborted
	}
	if err != nil {
		return nil, err
	}
	s.seeShots()
	s.trace.logf("snapper", "has %s", sn.name)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shots = append(s.shots, sn)
	return sn, nil
}

// seeShots takes note of snapshots that have been taken. What loses power afterwards may make them be given up, but not show less (R11loss).
func (s *Sim) seeShots() {
	s.view(func(v *fsm.View) {
		s.shooting.Range(func(key, _ any) bool {
			if sn := key.(*shot); sn.ret.Load() == 0 && v.Took(sn.id) {
				sn.ret.Store(s.history.tick())
			}
			return true
		})
	})
}

// readSnapshot reads all blocks in use from a snapshot, as a client on a machine, and compares them with what was read before.
func (s *Sim) readSnapshot(sn *shot, near string) error {
	s.mu.Lock()
	s.shotReads++
	host := s.newClientHost(shotHost + s.shotReads)
	s.mu.Unlock()
	host.near = near
	p, err := host.begin()
	if err != nil {
		return err
	}
	defer p.end()
	ctx, cancel := context.WithTimeout(context.Background(), shotTimeout)
	defer cancel()
	dev, err := p.store.OpenSnapshot(ctx, sn.v.path, sn.name)
	if err != nil {
		return err
	}
	sn.size.Store(dev.Size())
	for c := range dev.Size() / chunkSize {
		for _, b := range hot {
			if err := s.readShot(sn, dev, c*chunkSectors+b*blockSectors); err != nil {
				return errors.Join(err, dev.Close())
			}
		}
	}
	return dev.Close()
}

func (s *Sim) readShot(sn *shot, dev *blockstore.Snapshot, first int64) error {
	r := blocktest.Read(first*block.SectorSize, block.Size)
	if blocktest.Do(dev, r); r.Err != nil {
		return fmt.Errorf("%s of volume %d: %w", sn.name, sn.v.number, r.Err)
	}
	ids, err := readSectors(r.Data, first)
	if s.look(); s.losses.doubtful(sn.v.path) {
		return nil
	}
	if err != nil {
		s.wrong("%s of volume %d: %v", sn.name, sn.v.number, err)
		return nil
	}
	if was, is := sn.seen[first]; !is {
		sn.seen[first] = ids
		s.history.shot(sn, first, ids)
	} else if !slices.Equal(was, ids) {
		s.wrong("%s of volume %d has changed: of block %d it showed the values %v and shows %v", sn.name, sn.v.number, first/blockSectors, was, ids)
	}
	return nil
}

// readSnapshots reads all snapshots once everything has healed, on each chunk server's machine.
func (s *Sim) readSnapshots() {
	s.mu.Lock()
	all := slices.Clone(s.shots)
	s.mu.Unlock()
	for i, sn := range all {
		near := []string{s.servers[i%len(s.servers)].name, s.servers[(i+2)%len(s.servers)].name}
		for _, name := range near {
			err := s.readSnapshot(sn, name)
			lost := errors.Is(err, block.ErrLostData) && s.losses.isGone(sn.v.path)
			if err != nil && !lost && !(errors.Is(err, block.ErrCorrupt) && s.losses.doubtful(sn.v.path)) {
				s.wrong("%s of volume %d cannot be read on %s: %v", sn.name, sn.v.number, name, err)
			}
		}
	}
}

// shot notes what a block shows in a snapshot.
func (h *history) shot(sn *shot, first int64, ids []uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, &op{kind: frozen, client: -2, volume: sn.v.number, first: first, count: blockSectors, ids: ids, call: sn.call, ret: sn.ret.Load()})
}

// compareLayers compares the codes of a chunk's replicas as seen from each layer of its file. What a frozen layer hides nobody reads: its data may have rotted.
func (s *Sim) compareLayers(k fsm.ChunkKey, rec fsm.Chunk) {
	for _, layer := range s.layers(k.File) {
		var first []uint32
		for _, c := range s.servers {
			if !slices.Contains(rec.Insync, c.id) {
				continue
			}
			codes := make([]uint32, chunkSize/block.Size)
			a := store.Access{Version: rec.Version, Layer: layer, Frozen: true}
			if err := c.store.Table(chunkID(k), a, 0, chunkSize, codes, false); err != nil {
				s.wrong("layer %d of chunk %v on %s: %v", layer, k, c.name, err)
			} else if first == nil {
				first = codes
			} else if !slices.Equal(first, codes) {
				s.wrong("layer %d of chunk %v on %s differs from another replica's", layer, k, c.name)
			}
		}
	}
}

// layers are a file's.
func (s *Sim) layers(file uint64) (list []uint32) {
	s.view(func(v *fsm.View) {
		if f, err := v.File(file); err == nil {
			list = slices.Clone(f.Node.Layers)
		}
	})
	return list
}
