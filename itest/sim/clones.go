package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"pstorage/meta/metapb"
)

// Clones are made of snapshots, of clones too, while clients write and things fail, and are used like any volume. What a block shows in a clone at first is what its snapshot
// showed, which is on stable storage. Some of them are flattened, if who has them open lives long enough.

const (
	cloneGap   = 6 * time.Second // at most, between two
	mostClones = 3
	flattenTry = 3 * time.Second
)

// makeClones makes clones, and has some flattened, until the workload ends.
func (s *Sim) makeClones() {
	r := rand.New(rand.NewPCG(s.options.Seed, 8))
	for n := 0; ; {
		s.pause(time.Duration(r.Int64N(int64(cloneGap))))
		if s.stopping() {
			return
		}
		var err error
		if sn := s.chooseShot(r); sn != nil && n < mostClones {
			if err = s.clone(sn); err == nil {
				n++
			}
		} else {
			err = s.flattenOne(r)
		}
		if err != nil {
			s.trace.logf("cloner", "%v", err)
		}
	}
}

func (s *Sim) chooseShot(r *rand.Rand) *shot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.shots) == 0 {
		return nil
	}
	return s.shots[len(s.shots)-1-r.IntN(min(len(s.shots), 3))]
}

// clone makes a volume of a snapshot.
func (s *Sim) clone(sn *shot) error {
	m, err := s.metaClient("admin")
	if err != nil {
		return err
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(context.Background(), shotTimeout)
	defer cancel()
	if err := s.readSnapshot(sn, ""); err != nil {
		return err
	}
	s.mu.Lock()
	v := &volume{number: len(s.volumes), clone: true}
	s.mu.Unlock()
	v.path = fmt.Sprintf("/v%d", v.number)
	if !s.inherit(v, sn) {
		return fmt.Errorf("not all of %s is known", sn.name)
	}
	s.trace.logf("cloner", "makes volume %d of %s of volume %d", v.number, sn.name, sn.v.number)
	info, err := m.Clone(ctx, &metapb.CloneRequest{Path: sn.v.path, Snapshot: sn.name, NewPath: v.path})
	if err != nil {
		info, err = m.Lookup(ctx, &metapb.LookupRequest{Path: v.path}) // the answer may be lost
	}
	if err != nil {
		return err
	}
	v.size = int64(info.Size)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.volumes = append(s.volumes, v)
	return nil
}

// inherit notes what a clone shows at first, as flushed writes of nobody's. It fails if that is not known of every block.
func (s *Sim) inherit(v *volume, sn *shot) bool {
	var ops []*op
	for c := range sn.size.Load() / chunkSize {
		for _, b := range hot {
			first := c*chunkSectors + b*blockSectors
			ids, is := sn.seen[first]
			if !is {
				return false
			}
			ops = append(ops, &op{kind: write, client: -3, volume: v.number, first: first, count: blockSectors, ids: ids, durable: true})
		}
	}
	for _, o := range ops {
		s.history.begin(o)
		s.history.end(o)
	}
	return true
}

// flattenOne asks for a clone to be flattened, or, sometimes, for that to end.
func (s *Sim) flattenOne(r *rand.Rand) error {
	var clones []*volume
	for _, v := range s.allVolumes() {
		if v.clone {
			clones = append(clones, v)
		}
	}
	if len(clones) == 0 {
		return nil
	}
	v := clones[r.IntN(len(clones))]
	m, err := s.metaClient("admin")
	if err != nil {
		return err
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(context.Background(), flattenTry)
	defer cancel()
	cancels := r.IntN(4) == 0
	_, err = m.Flatten(ctx, &metapb.FlattenRequest{Path: v.path, Cancel: cancels})
	s.trace.logf("cloner", "flattens volume %d, cancel %v: %v", v.number, cancels, err)
	return err
}
