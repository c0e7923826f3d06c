package sim

import (
	"context"
	"time"

	"pstorage/meta/metapb"
)

// cloned makes a clone of a volume's blocks, and changes the volume.
func (s *stage) cloned() *volume {
	v := s.volumes[0]
	a := s.open(v, nil)
	a.does(a.writes(0, few...), a.writes(1, few...))
	sn, err := s.takeSnapshot(v)
	s.need(err)
	s.need(s.clone(sn))
	a.does(a.writes(0, few...))
	a.closes()
	return s.volumes[len(s.volumes)-1]
}

// cutClone: all replicas of a clone lose power with first writes of blocks that are not flushed: of what the snapshot has, nothing may be lost. Then a part of one
// is written.
func cutClone(s *stage) {
	v := s.cloned()
	b := s.open(v, nil)
	b.does(b.reads(0, few...), b.writes(0, few[0]), b.flush, b.writes(0, few...), func() { b.put(chunkSectors+3, 2, false) })
	m := s.members(v, 0)
	for _, c := range m {
		s.kill(c, true)
	}
	b.dies(true)
	for _, c := range m {
		s.need(c.back())
	}
	time.Sleep(known)
	b = s.open(v, nil)
	b.does(b.reads(0, few...), b.reads(1, few...), func() { b.put(few[1]*blockSectors+1, 3, true) }, b.reads(0, few...))
	b.closes()
}

// flattenedClone: while a clone is flattened, its holder dies, a replica loses power, and the leader changes.
func flattenedClone(s *stage) {
	v := s.cloned()
	time.Sleep(voting)
	b := s.open(v, nil)
	b.does(b.writes(0, few[0]))
	s.hold(b, s.members(v, 0)[1])
	b.starts(func() { _ = s.flattenOne(s.rand) })
	b.dies(true)
	c := s.open(v, nil)
	victim := s.members(v, 0)[0]
	c.starts(func() { s.kill(victim, true) }, s.newLeader, c.writes(1, few[1]))
	s.flatten(v)
	s.need(victim.back())
	c.does(c.reads(0, few...), c.reads(1, few...))
	c.closes()
}

// flatten asks for it until the metadata servers have forgotten what a volume is over. Somebody has it open.
func (s *stage) flatten(v *volume) {
	m, err := s.metaClient("admin")
	s.need(err)
	defer m.Close()
	s.until("the clone is flat", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), flattenTry)
		defer cancel()
		info, err := m.Lookup(ctx, &metapb.LookupRequest{Path: v.path})
		if err == nil && info.Over != nil && !info.Flattening {
			_, err = m.Flatten(ctx, &metapb.FlattenRequest{Path: v.path})
		}
		return err == nil && info.Over == nil
	})
}
