package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"pstorage/blockstore"
	"pstorage/blockstore/block"
	"pstorage/cs/chunk"
	"pstorage/cs/disk"
	"pstorage/cs/store"
	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
)

// stage is where a script plays: the cluster, and the clients that the script opens. A step that does not come about ends the script: that is
// a failure of the test, not a finding of the run.
type stage struct {
	*Sim
	actors []*actor
}

// wants changes how many replicas a volume wants.
func (s *stage) wants(v *volume, norm, least uint32) {
	admin, err := s.metaClient("admin")
	s.need(err)
	defer admin.Close()
	_, err = admin.SetAttributes(context.Background(), &metapb.SetAttributesRequest{Path: v.path,
		Attributes: &metapb.Attributes{ReplicasNorm: norm, ReplicasMin: least, ChunkSize: chunkSize, FailureDomain: "host"}})
	s.need(err)
}

// holds tells whether a server has a replica of a volume's first chunk.
func (s *stage) holds(c *chunkServer, v *volume) (yes bool) {
	c.store.Inventory(func(r store.Replica) bool {
		yes = yes || r.ID.Index == 0 && s.volumeOf(r.ID.File) == v
		return true
	})
	return yes
}

// steady leaves less to chance: what is not synced is lost with the power, and no replica is moved for the sake of evenness.
func (s *stage) steady() {
	for _, c := range s.servers {
		c.disk.Forgets(true)
	}
	admin, err := s.metaClient("admin")
	s.need(err)
	defer admin.Close()
	_, err = admin.SetConfig(context.Background(), &metapb.SetConfigRequest{Set: map[string]string{"mds.wd.rebalance": "0"}})
	s.need(err)
}

// unplayable is what a step panics with that does not come about.
type unplayable struct{ error }

// inactive is how long a machine must be away for the metadata servers to take it for one that does not run, and more.
const inactive = 7 * time.Second

// known is how long after lost power the metadata servers know of it, and more.
const known = knownLate + time.Second

// voting is how long it takes until all metadata servers have a vote, and more.
const voting = 5 * time.Second

// stepTime is the most virtual time that a step may wait for.
const stepTime = time.Minute

// directed makes a script what a run takes. It tells err whether everything came about.
func directed(script func(*stage), err *error) func(*Sim) {
	return func(sim *Sim) {
		s := &stage{Sim: sim}
		defer func() {
			if u, is := recover().(unplayable); is {
				*err = fmt.Errorf("%w; the last events:\n%s", u.error, s.trace)
			}
			s.heal()
			for _, a := range s.actors {
				a.leave()
			}
		}()
		s.steady()
		script(s)
	}
}

func (s *stage) need(err error) {
	if err != nil {
		s.trace.logf("script", "does not come about: %v", err)
		panic(unplayable{err})
	}
}

// until waits for something.
func (s *stage) until(what string, reached func() bool) {
	for end := time.Now().Add(stepTime); !reached(); time.Sleep(10 * time.Millisecond) {
		if s.hasFound() || time.Now().After(end) {
			s.need(fmt.Errorf("not within %v: %s\n%s", stepTime, what, s.inventory()))
		}
	}
}

// record is what the metadata servers know of a chunk.
func (s *stage) record(v *volume, index uint32) fsm.Chunk {
	s.look()
	for k, rec := range s.records() {
		if k.Index == index && s.volumeOf(k.File) == v {
			return rec
		}
	}
	return fsm.Chunk{}
}

// members are the servers in sync of a chunk.
func (s *stage) members(v *volume, index uint32) (list []*chunkServer) {
	for _, id := range s.record(v, index).Insync {
		list = append(list, s.servers[slices.IndexFunc(s.servers, func(c *chunkServer) bool { return c.id == id })])
	}
	return list
}

func (s *stage) isMember(v *volume, index uint32, c *chunkServer) bool {
	return slices.Contains(s.record(v, index).Insync, c.id)
}

// part cuts off machines from one another, both ways, or joins them again.
func (s *stage) part(one string, others []string, apart bool) {
	s.net.isolate(one, others, true, true, apart)
}

func (s *stage) metaNames() (names []string) {
	for _, m := range s.mds {
		names = append(names, m.name)
	}
	return names
}

// hold lets nothing that an actor sends reach servers, until it is let go or the actor's machine loses power.
func (s *stage) hold(a *actor, servers ...*chunkServer) {
	for _, c := range servers {
		s.net.cut(a.p.host.name, c.name, true)
	}
}

func (s *stage) letGo(a *actor, servers ...*chunkServer) {
	for _, c := range servers {
		s.net.cut(a.p.host.name, c.name, false)
	}
}

// prepared has a volume's first chunk written and closed clean, and returns one of its servers.
func (s *stage) prepared(v *volume, which int) *chunkServer {
	a := s.open(v, nil)
	a.does(a.writes(0, few...))
	a.closes()
	return s.members(v, 0)[which]
}

// rotAt damages a block of a replica of a volume's first chunk.
func (s *stage) rotAt(c *chunkServer, v *volume, b int64) {
	for _, name := range c.files(c.dir + "/store/chunks") {
		k, is := chunkOf(name)
		if !is || k.Index != 0 || s.volumeOf(k.File) != v {
			continue
		}
		f, err := c.disk.Open(name)
		s.need(err)
		_, err = f.WriteAt([]byte{0xaa}, chunk.DataOffset(chunkSize/block.Size, uint32(b))+9)
		s.need(errors.Join(err, f.Close()))
		return
	}
	s.need(fmt.Errorf("%s has no file of the chunk", c.name))
}

// kill ends a server's process, or its machine, between two operations of its disk.
func (s *stage) kill(c *chunkServer, power bool) {
	if power {
		s.losePower(c.id, func() { c.stop(true) })
		return
	}
	c.stop(false)
}

// next is the name of the machine of the client that is opened next.
func (s *stage) next() string { return fmt.Sprintf("client%d", len(s.actors)+1) }

// newLeader has the metadata server that leads hand over and end.
func (s *stage) newLeader() {
	for _, m := range s.mds {
		if server := m.running(); server.Leading() {
			_ = server.Close()
			m.stop()
			return
		}
	}
	s.need(errors.New("nobody leads"))
}

// failOnce has the next such operation on a server's chunk files fail.
func (s *stage) failOnce(c *chunkServer, op disk.Op) {
	var failed atomic.Bool
	c.disk.Fails(func(step disk.Step) error {
		if _, is := chunkOf(step.Name); is && step.Op == op && !failed.Swap(true) {
			return disk.ErrIO
		}
		return nil
	})
}

// lacks ends a server's process; the metadata servers know before anything is dropped from it, and so wait for it to come back.
func (s *stage) lacks(c *chunkServer) {
	s.kill(c, false)
	time.Sleep(time.Second)
}

// actor is a client process with an open volume that does what the script says.
type actor struct {
	*user
	s     *stage
	going sync.WaitGroup
	left  bool
}

// open starts a client process and opens a volume; near is the server it reads from first, if any.
func (s *stage) open(v *volume, near *chunkServer) *actor {
	host := s.newClientHost(len(s.actors) + 1)
	if near != nil {
		host.near = near.name
	}
	p, err := host.begin()
	s.need(err)
	a := &actor{user: &user{p: p, v: v}, s: s}
	s.actors = append(s.actors, a)
	s.clients = append(s.clients, host)
	ctx, cancel := context.WithTimeout(context.Background(), stepTime)
	defer cancel()
	a.dev, err = p.store.Open(ctx, v.path, blockstore.OpenOptions{})
	if err != nil {
		a.dev = nil
	}
	s.need(err)
	return a
}

// starts makes requests whose end the script does not wait for. After a moment they are where they get.
func (a *actor) starts(requests ...func()) {
	for _, r := range requests {
		a.going.Go(r)
	}
	time.Sleep(time.Second / 2)
}

// does makes requests one after another.
func (a *actor) does(requests ...func()) {
	for _, r := range requests {
		done := make(chan struct{})
		a.going.Go(func() {
			r()
			close(done)
		})
		select {
		case <-done:
		case <-time.After(stepTime):
			a.s.need(fmt.Errorf("%s: a request was not answered within %v", a.p.host.name, stepTime))
		}
	}
}

// writes returns the writing of whole blocks, each of which has a value of its own.
func (a *actor) writes(chunk int64, blocks ...int64) func() {
	return func() {
		for _, b := range blocks {
			a.put(chunk*chunkSectors+b*blockSectors, blockSectors, false)
		}
	}
}

// each returns writings of blocks of the first chunk, one each, to be made at the same time.
func (a *actor) each(blocks []int64) (all []func()) {
	for _, b := range blocks {
		all = append(all, a.writes(0, b))
	}
	return all
}

// reads returns the reading of whole blocks.
func (a *actor) reads(chunk int64, blocks ...int64) func() {
	return func() {
		for _, b := range blocks {
			a.read(chunk*chunkSectors+b*blockSectors, blockSectors)
		}
	}
}

// closes closes the volume and ends the process.
func (a *actor) closes() {
	a.going.Wait()
	a.s.need(a.dev.Close())
	a.dev = nil
	a.leave()
}

// leave ends the process however it stands.
func (a *actor) leave() {
	if a.left {
		return
	}
	a.left = true
	a.p.end()
	a.going.Wait()
}

// dies ends the process; with power, what is still on its way is lost.
func (a *actor) dies(power bool) {
	if power {
		a.p.losePower()
	} else {
		a.p.kill()
	}
	a.s.trace.logf("script", "%s is dead", a.p.host.name)
}
