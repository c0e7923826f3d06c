package sim

import (
	"fmt"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"time"

	"pstorage/blockstore/block"
	"pstorage/cs/chunk"
	"pstorage/cs/disk"
	"pstorage/meta/fsm"
)

const (
	shortOutage = 3 * time.Second
	longOutage  = 9 * time.Second
	pastLease   = 12 * time.Second
)

// ServerFaults end processes of chunk servers; their machines live on.
var ServerFaults = []Fault{
	{"a chunk server is killed", aServer(func(s *Sim, r *rand.Rand, c *chunkServer) { s.outage(r, c, false, outageOf(r)) })},
	{"a chunk server is killed, and once more", aServer(func(s *Sim, r *rand.Rand, c *chunkServer) {
		s.outage(r, c, false, time.Second)
		within(r, time.Millisecond, shortOutage)
		s.outage(r, c, false, shortOutage)
	})},
	{"all chunk servers are killed", func(s *Sim, r *rand.Rand) { s.disaster(r, 0) }},
	{"a chunk server is killed, and slow when it is back", aServer(func(s *Sim, r *rand.Rand, c *chunkServer) {
		s.outage(r, c, false, time.Second)
		c.slow.set(time.Duration(1 + r.Int64N(int64(400*time.Millisecond))))
		within(r, time.Second, longOutage)
		c.slow.set(0)
	})},
	{"a chunk server is stopped", aServer(func(s *Sim, r *rand.Rand, c *chunkServer) { s.frozen(r, c.name, longOutage) })},
}

// PowerFaults end machines of chunk servers.
var PowerFaults = []Fault{
	{"a chunk server loses power", aServer(func(s *Sim, r *rand.Rand, c *chunkServer) { s.outage(r, c, true, outageOf(r)) })},
	{"all chunk servers lose power", func(s *Sim, r *rand.Rand) { s.disaster(r, 100) }},
	{"all chunk servers end, some with their machines", func(s *Sim, r *rand.Rand) { s.disaster(r, 60) }},
}

// NetworkFaults are between any machines.
var NetworkFaults = []Fault{
	{"a chunk server is cut off", aServer(func(s *Sim, r *rand.Rand, c *chunkServer) { s.apart(r, c.name, longOutage) })},
	{"a chunk server's connections break", aServer(func(s *Sim, _ *rand.Rand, c *chunkServer) { s.net.hangUp(c.name, "") })},
	{"a chunk server answers late", aServer(func(s *Sim, r *rand.Rand, c *chunkServer) { s.late(r, c.name) })},
	{"a client's requests arrive late", aClient(func(s *Sim, r *rand.Rand, c *clientHost) { s.late(r, c.name) })},
	{"the machines are split", func(s *Sim, r *rand.Rand) { s.split(r) }},
	{"one way is cut", func(s *Sim, r *rand.Rand) {
		all := s.everybody()
		from, to := all[r.IntN(len(all))], all[r.IntN(len(all))]
		s.trace.logf(from, "nothing gets to %s", to)
		s.net.cut(from, to, true)
		within(r, 100*time.Millisecond, longOutage)
		s.net.cut(from, to, false)
	}},
}

// DiskFaults are of chunk servers' disks.
var DiskFaults = []Fault{
	{"a disk is slow", aServer(func(_ *Sim, r *rand.Rand, c *chunkServer) {
		c.slow.set(time.Duration(1 + r.Int64N(int64(time.Second))))
		within(r, time.Second, longOutage)
		c.slow.set(0)
	})},
	{"a disk is full", aServer(func(s *Sim, r *rand.Rand, c *chunkServer) {
		s.diskFaults.Store(true)
		if total, free, err := c.disk.Space(c.dir); err == nil {
			c.disk.Limit(int64(total - free))
		}
		within(r, time.Second, longOutage)
		c.disk.Limit(s.options.diskSize())
	})},
	{"syncs fail", aServer(func(s *Sim, r *rand.Rand, c *chunkServer) { s.failing(r, c, disk.OpSync) })},
	{"writes fail", aServer(func(s *Sim, r *rand.Rand, c *chunkServer) { s.failing(r, c, disk.OpWrite) })},
	{"reads fail", aServer(func(s *Sim, r *rand.Rand, c *chunkServer) { s.failing(r, c, disk.OpRead) })},
	{"a block rots", aServer(func(s *Sim, r *rand.Rand, c *chunkServer) { s.rot(r, c) })},
	{"a block of a last good replica rots", func(s *Sim, r *rand.Rand) { s.rotLast(r) }},
}

// MetaFaults are of metadata servers.
var MetaFaults = []Fault{
	{"a metadata server is killed", aMDS(func(s *Sim, r *rand.Rand, m *mds) {
		s.look()
		m.stop()
		within(r, 10*time.Millisecond, longOutage)
		s.must(m.start())
	})},
	{"a metadata server is stopped", aMDS(func(s *Sim, r *rand.Rand, m *mds) { s.frozen(r, m.name, longOutage) })},
	{"a metadata server is cut off", aMDS(func(s *Sim, r *rand.Rand, m *mds) { s.apart(r, m.name, longOutage) })},
}

// ClientFaults are of clients.
var ClientFaults = []Fault{
	{"a client is killed", aClient(func(_ *Sim, _ *rand.Rand, c *clientHost) {
		if p := c.process(); p != nil {
			p.kill()
		}
	})},
	{"a client loses power while one server hears it late", aClient(func(s *Sim, r *rand.Rand, c *clientHost) {
		s.dies(r, c, (*process).losePower)
	})},
	{"a client is killed while one server hears it late", aClient(func(s *Sim, r *rand.Rand, c *clientHost) {
		s.dies(r, c, (*process).kill)
	})},
	{"a client is stopped", aClient(func(s *Sim, r *rand.Rand, c *clientHost) { s.frozen(r, c.name, pastLease) })},
	{"a client is cut off", aClient(func(s *Sim, r *rand.Rand, c *clientHost) { s.apart(r, c.name, pastLease) })},
	{"a client's connections break", aClient(func(s *Sim, _ *rand.Rand, c *clientHost) { s.net.hangUp(c.name, "") })},
}

// outageOf is short mostly, and sometimes long enough for the server to be replaced.
func outageOf(r *rand.Rand) time.Duration {
	switch r.IntN(6) {
	case 0:
		return 40 * time.Second
	case 1, 2:
		return longOutage
	}
	return shortOutage
}

// outage ends a chunk server, and starts it again.
func (s *Sim) outage(r *rand.Rand, c *chunkServer, power bool, most time.Duration) {
	s.end(c, power)
	within(r, time.Millisecond, most)
	s.must(c.back())
}

func (s *Sim) end(c *chunkServer, power bool) {
	if power {
		s.losePower(c.id, func() { c.stop(true) })
		return
	}
	c.stop(false)
}

// disaster ends all chunk servers at about the same time, some percent of them with their machines.
func (s *Sim) disaster(r *rand.Rand, percent int) {
	apart := time.Duration(1 + r.Int64N(int64(2*time.Second)))
	var all sync.WaitGroup
	for _, c := range s.servers {
		if !s.broken.take(c.name) {
			continue
		}
		power := r.IntN(100) < percent
		begin, down := time.Duration(r.Int64N(int64(apart))), time.Duration(1+r.Int64N(int64(longOutage)))
		all.Go(func() {
			defer s.broken.give(c.name)
			time.Sleep(begin)
			s.end(c, power)
			time.Sleep(down)
			s.must(c.back())
		})
	}
	all.Wait()
}

// dies ends a client while its requests have reached some servers, and not one.
func (s *Sim) dies(r *rand.Rand, c *clientHost, end func(*process)) {
	p := c.process()
	if p == nil {
		return
	}
	s.net.lag(c.name, s.servers[r.IntN(len(s.servers))].name, pastLease)
	within(r, 10*time.Millisecond, 2*time.Second)
	end(p)
}

// split cuts the machines into two parts that do not hear of each other for a while.
func (s *Sim) split(r *rand.Rand) {
	one, other := []string{}, []string{}
	for _, name := range s.everybody() {
		if r.IntN(2) == 0 {
			one = append(one, name)
		} else {
			other = append(other, name)
		}
	}
	s.trace.logf("sim", "split: %v, %v", one, other)
	for _, name := range one {
		s.net.isolate(name, other, true, true, true)
	}
	within(r, time.Second, pastLease)
	for _, name := range one {
		s.net.isolate(name, other, true, true, false)
	}
}

// late makes a machine's connections slow, so that they are given up and replaced while requests are still on their way.
func (s *Sim) late(r *rand.Rand, name string) {
	by := time.Duration(r.Int64N(int64(6 * time.Second)))
	s.trace.logf(name, "what it sends arrives %v later", by)
	s.net.lag(name, "", by)
	within(r, time.Millisecond, by+2*time.Second)
}

// failing has operations of a disk fail for a while, on chunks that have another good replica.
func (s *Sim) failing(r *rand.Rand, c *chunkServer, op disk.Op) {
	s.diskFaults.Store(true)
	oneIn, chance := 1+r.IntN(4), rand.New(rand.NewPCG(r.Uint64(), 1))
	c.disk.Fails(func(step disk.Step) error {
		if step.Op == op && chance.IntN(oneIn) == 0 {
			if k, is := chunkOf(step.Name); is && s.mayRuin(c.id, k, 1) {
				return disk.ErrIO
			}
		}
		return nil
	})
	within(r, 100*time.Millisecond, longOutage)
	c.disk.Fails(nil)
}

// chunkOf tells which chunk a file belongs to.
func chunkOf(name string) (k fsm.ChunkKey, is bool) {
	_, err := fmt.Sscanf(path.Base(path.Dir(name))+"/"+path.Base(name), "%16x-000000/%8x.", &k.File, &k.Index)
	return k, err == nil
}

// rot damages a block that is in use, on one server, where others have it too.
func (s *Sim) rot(r *rand.Rand, c *chunkServer) {
	names := c.files(c.dir + "/store/chunks")
	if len(names) == 0 {
		return
	}
	name := names[r.IntN(len(names))]
	if k, is := chunkOf(name); is && s.mayRuin(c.id, k, 2) {
		s.rotIn(r, c, name, k)
	}
}

// rotLast damages a block of the only replica in sync of a chunk, and at times what other servers have of the block: what is not damaged must become
// whole, and be used again.
func (s *Sim) rotLast(r *rand.Rand) {
	everywhere, where := r.IntN(2) == 0, r.Uint64()
	for _, i := range r.Perm(len(s.servers)) {
		c := s.servers[i]
		for _, name := range c.files(c.dir + "/store/chunks") {
			k, is := chunkOf(name)
			if s.look(); !is || !s.losses.ruinLast(c.id, k) {
				continue
			}
			for _, o := range s.servers {
				if o == c || everywhere {
					s.rotIn(rand.New(rand.NewPCG(where, 1)), o, strings.Replace(name, c.dir, o.dir, 1), k)
				}
			}
			return
		}
	}
}

func (s *Sim) rotIn(r *rand.Rand, c *chunkServer, name string, k fsm.ChunkKey) {
	f, err := c.disk.Open(name)
	if err != nil {
		return
	}
	defer f.Close()
	off := chunk.DataOffset(chunkSize/block.Size, uint32(hot[r.IntN(len(hot))])) + r.Int64N(block.Size)
	var b [1]byte
	if _, err := f.ReadAt(b[:], off); err != nil {
		return
	}
	b[0] ^= byte(1 + r.IntN(255))
	_, err = f.WriteAt(b[:], off)
	s.trace.logf(c.name, "chunk %v: a byte at %d rots: %v", k, off, err)
}

// files lists the files below a folder of the disk.
func (c *chunkServer) files(dir string) (names []string) {
	list, err := c.disk.List(dir)
	if err != nil {
		return nil
	}
	for _, name := range list {
		if below, is := strings.CutSuffix(name, "/"); is {
			names = append(names, c.files(fmt.Sprintf("%s/%s", dir, below))...)
		} else {
			names = append(names, dir+"/"+name)
		}
	}
	return names
}
