package blockstore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
)

// TestNothingAcknowledgedIsLostThroughFailures runs writers against a cluster in which servers die, hang, lose connections and lie about
// what they have, one at a time, with rebuilds, pauses of the metadata servers and changes of holder in between. Every block's history is
// checked: a read returns the last acknowledged write or, if one failed or is in flight, that one.
func TestNothingAcknowledgedIsLostThroughFailures(t *testing.T) {
	seeds := 6
	if n, err := strconv.Atoi(os.Getenv("SEEDS")); err == nil {
		seeds = n
	}
	first := uint64(1)
	if n, err := strconv.Atoi(os.Getenv("SEED")); err == nil {
		first, seeds = uint64(n), 1
	}
	for seed := first; seed < first+uint64(seeds); seed++ {
		synctest.Test(t, func(t *testing.T) { simulate(t, seed) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

const (
	simWriters = 6
	simBlocks  = 12 // each writer's own
	simTime    = 40 * time.Second
)

// history is the writes of which a block may hold one: the one acknowledged last, and those in flight or cut off since. 0: zeros.
type history struct{ may []uint64 }

type simulation struct {
	t    *testing.T
	k    *cluster
	rand *rand.Rand
	mu   sync.Mutex
	v    *Volume
	stop bool
	next uint64
	hist map[int64]*history
}

func simulate(t *testing.T, seed uint64) {
	m := &simulation{t: t, k: newCluster(4, 4*testChunk, 3, 2), rand: rand.New(rand.NewPCG(seed, 1)), hist: map[int64]*history{}}
	for _, s := range m.k.servers {
		s.delay = randomDelay(rand.New(rand.NewPCG(seed, uint64(s.id))), 3*time.Millisecond)
	}
	m.v = m.k.open(t, OpenOptions{})
	var workers, rest sync.WaitGroup
	for w := range int64(simWriters) {
		r := rand.New(rand.NewPCG(seed, 100+uint64(w)))
		workers.Go(func() { m.write(w, r) })
	}
	rest.Go(m.mend)
	m.faults()
	m.set(func() { m.stop = true })
	hung := time.AfterFunc(2*time.Minute, func() { panic(m.v.stuckSummary()) })
	workers.Wait()
	hung.Stop()
	m.check()
	m.k.end(m.v)
	m.set(func() { m.v = nil })
	rest.Wait()
}

func (m *simulation) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}

func (m *simulation) volume() (v *Volume, stop bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.v, m.stop
}

// mend is what the metadata servers do: they bring servers back, resolve suspects and rebuild.
func (m *simulation) mend() {
	for v, _ := m.volume(); v != nil; v, _ = m.volume() {
		m.k.meta.resolve()
		m.k.meta.rebuild(func() { time.Sleep(2 * time.Millisecond) })
		time.Sleep(50 * time.Millisecond)
	}
}

// place is a block of a writer's own: spread over chunks, next to those of others.
func place(w, i int64) int64 { return (i%4)*testChunk + (i/4*simWriters+w)*4096 }

func (m *simulation) write(w int64, r *rand.Rand) {
	for {
		v, stop := m.volume()
		if stop {
			return
		}
		at := place(w, r.Int64N(simBlocks))
		switch r.IntN(8) {
		case 0:
			blocktest.Do(v, &block.Request{Op: block.Flush})
		case 1, 2, 3:
			m.read(v, at)
		default:
			m.writeSome(v, at, 1+r.IntN(2))
		}
		time.Sleep(time.Duration(r.IntN(20)) * time.Millisecond)
	}
}

// of returns a block's history. m.mu is held.
func (m *simulation) of(at int64) *history {
	h := m.hist[at]
	if h == nil {
		h = &history{may: []uint64{0}}
		m.hist[at] = h
	}
	return h
}

// writeSome writes one block, n times at once: whichever comes last stays.
func (m *simulation) writeSome(v *Volume, at int64, n int) {
	var ids []uint64
	var batch []*block.Request
	m.set(func() {
		for range n {
			m.next++
			ids = append(ids, m.next)
			batch = append(batch, blocktest.Write(at, blocktest.Bytes(m.next, 4096)))
		}
		h := m.of(at)
		h.may = append(h.may, ids...)
	})
	blocktest.Do(v, batch...)
	all := true
	for _, r := range batch {
		all = m.expected(r) && all
	}
	if all {
		m.set(func() { m.of(at).may = ids })
	}
}

// expected reports whether a request went well; it may fail only where the volume was given up.
func (m *simulation) expected(r *block.Request) bool {
	if r.Err != nil && !errors.Is(r.Err, block.ErrLostLease) && !errors.Is(r.Err, block.ErrClosed) {
		m.t.Errorf("%v at %d: %v", r.Op, r.Offset, r.Err)
	}
	return r.Err == nil
}

func (m *simulation) read(v *Volume, at int64) {
	r := blocktest.Read(at, 4096)
	if blocktest.Do(v, r); !m.expected(r) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.of(at)
	for _, id := range h.may {
		want := make([]byte, 4096)
		if id != 0 {
			want = blocktest.Bytes(id, 4096)
		}
		if string(want) == string(r.Data) {
			h.may = []uint64{id} // what was read once stays
			return
		}
	}
	m.t.Errorf("block at %d holds none of the writes %d", at, h.may)
}

// faults breaks one thing after the other.
func (m *simulation) faults() {
	for start := time.Now(); time.Since(start) < simTime && !m.t.Failed(); {
		time.Sleep(time.Duration(m.rand.IntN(2000)) * time.Millisecond)
		s := m.k.servers[m.rand.IntN(len(m.k.servers))]
		pause := time.Duration(m.rand.IntN(5000)) * time.Millisecond
		switch m.rand.IntN(8) {
		case 0, 1:
			s.kill(false)
			time.Sleep(pause)
			m.k.meta.admit(s)
		case 2:
			s.goDeaf()
			time.Sleep(pause)
			s.listen()
		case 3:
			s.set(func() { s.mute = true })
			time.Sleep(pause)
			s.set(func() { s.mute = false })
		case 4:
			s.hangUp()
		case 5:
			m.k.meta.set(func() { m.k.meta.down = true })
			time.Sleep(pause)
			m.k.meta.set(func() { m.k.meta.down = false })
		case 6:
			m.everythingDies()
		case 7:
			m.takeOver(pause)
		}
	}
}

// everythingDies kills all chunk servers' processes; their machines live on.
func (m *simulation) everythingDies() {
	for _, s := range m.k.servers {
		s.kill(false)
	}
	time.Sleep(time.Duration(m.rand.IntN(3000)) * time.Millisecond)
	for _, s := range m.k.servers {
		time.Sleep(time.Duration(m.rand.IntN(300)) * time.Millisecond)
		m.k.meta.admit(s)
	}
}

// takeOver cuts the holder off from the metadata servers until another has the lease. Half of the time it dies, while its writes have
// reached some servers and not others; else it can still reach all chunk servers, or all but one.
func (m *simulation) takeOver(pause time.Duration) {
	old, _ := m.volume()
	me := m.k.clients
	m.k.meta.set(func() { m.k.meta.deafTo[me] = true })
	dies := m.rand.IntN(2) == 0
	for i, no := range m.rand.Perm(len(m.k.servers)) {
		if s := m.k.servers[no]; dies || i == 0 {
			m.k.cut.Store([2]uint64{me, uint64(s.id)}, true)
			s.hangUp()
			time.Sleep(time.Duration(m.rand.IntN(3)) * time.Millisecond)
		}
	}
	time.Sleep(fakeLease)
	v := m.k.open(m.t, OpenOptions{})
	m.set(func() { m.v = v })
	time.Sleep(pause)
	m.k.meta.set(func() { clear(m.k.meta.deafTo) })
	_ = old.c.Close()
}

// check ends the faults and looks at everything.
func (m *simulation) check() {
	for _, s := range m.k.servers {
		s.set(func() { s.mute = false })
		s.listen()
	}
	time.Sleep(5 * time.Second)
	for range 3 { // from other replicas
		for at := range m.hist {
			m.read(m.v, at)
		}
	}
	time.Sleep(5 * time.Second)
	if err := m.k.differences(); err != nil {
		m.t.Error(err)
	}
	for i := range uint32(4) {
		if got := m.k.insync(i); len(got) < 3 {
			m.t.Errorf("chunk %d is in sync on %v", i, got)
		}
	}
}

// stuckSummary tells what the volume's chunks wait for.
func (v *Volume) stuckSummary() (out string) {
	for _, vs := range v.allServers() {
		out += fmt.Sprintf("server %d: link %d fenced %v dirty %v condemned %v\n", vs.id, vs.link.state.Load(), vs.fenced.Load(), vs.dirty.Load(), vs.condemned.Load())
	}
	v.table.each(func(ch *chunkState) bool {
		ids := ""
		ch.members(func(vs *vserver) { ids += fmt.Sprint(" ", vs.id) })
		out += fmt.Sprintf("chunk %d: version %d of%s, trouble %b, few %v, stuck %v, tries %d, allocating %v, %d complaints, %d active, parked %v, waiting %v\n",
			ch.index, ch.version, ids, ch.trouble, ch.fewer, ch.stuck, ch.tries, ch.allocating, len(ch.complaints), len(ch.active), ch.parked.head != nil, ch.waiting.head != nil)
		return true
	})
	return out + fmt.Sprintf("flush stalled %v running %v, %d in flight, lease %v lost %v\n", v.flusher.stalled, v.flusher.running, v.inflight.Load(), v.leaseValid(), v.lease.lost.Load())
}
