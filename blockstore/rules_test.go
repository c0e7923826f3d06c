package blockstore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs/wire"
	"pstorage/meta/rules"
)

// Each scenario brings about the situation that a rule is there for and returns what went wrong. With all rules nothing may; with the
// rule left out something must, or the scenario proves nothing.
func TestEachRuleIsNeeded(t *testing.T) {
	for _, c := range []struct {
		name     string
		rule     rules.Set
		scenario func(*testing.T, rules.Set) error
	}{
		{"R1StopsReadsWhenTheLeaseIsNotRenewed", rules.R1, leaseRunsOut},
		{"R2SendsAgainWhatWasNotAnswered", rules.R2resend, connectionBreaks},
		{"R3KeepsOverlappingWritesApart", rules.R3, overlappingWrites},
		{"R4AcknowledgesOnlyAfterTheDrop", rules.R4commit, deadReplica},
		{"R4ForgetsAcknowledgementsOfAnOldMap", rules.R4acks, leftAndCameBack},
		{"R5FencesTheOldHolder", rules.R5fence, lateWriteOfOldHolder},
		{"R5DropsServersThatDoNotAnswerTheFence", rules.R5perchunk, unreachableAtOpen},
		{"R5MakesReplicasEqualBeforeReading", rules.R5reconcile, halfWritten},
		{"R5LeavesChunksOpenWhileAWriteIsInFlight", rules.R5open, slowWrite},
		{"R9FlushesWhatWasWritten", rules.R9, powerCut},
		{"R9SaysThatWritesAreLost", rules.R9loss, powerLost},
		{"R11WaitsForWritesInFlight", rules.R11wait, inFlightAtSnapshot},
		{"R11MakesASnapshotDurable", rules.R11flush, powerLostAfterSnapshot},
		{"R10DropsAReplicaThatFailsItsSum", rules.R10, corruptReplica},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if err := c.scenario(t, 0); err != nil {
					t.Errorf("with all rules: %v", err)
				}
			})
			synctest.Test(t, func(t *testing.T) {
				if err := c.scenario(t, c.rule); err == nil {
					t.Error("nothing went wrong although the rule was left out")
				}
			})
		})
	}
}

const testSize = 8 * testChunk

// async submits without waiting.
type async struct {
	*block.Request
	done chan struct{}
}

func (a *async) Complete([]*block.Request) { close(a.done) }

func submit(v *Volume, r *block.Request) *async {
	a := &async{r, make(chan struct{})}
	r.Done = a
	v.Submit([]*block.Request{r})
	return a
}

// within reports whether the request is complete after a while.
func (a *async) within(d time.Duration) bool {
	select {
	case <-a.done:
		return true
	case <-time.After(d):
		return false
	}
}

func write(v *Volume, offset int64, seed uint64) error {
	r := blocktest.Write(offset, blocktest.Bytes(seed, 4096))
	blocktest.Do(v, r)
	return r.Err
}

// holds reports an error unless the block at offset reads as what the seed makes.
func holds(v *Volume, offset int64, seed uint64) error {
	r := blocktest.Read(offset, 4096)
	if blocktest.Do(v, r); r.Err != nil {
		return r.Err
	}
	if !bytes.Equal(r.Data, blocktest.Bytes(seed, 4096)) {
		return fmt.Errorf("block at %d does not hold write %d", offset, seed)
	}
	return nil
}

func flush(v *Volume) error {
	r := &block.Request{Op: block.Flush}
	blocktest.Do(v, r)
	return r.Err
}

// end closes everything, whatever state it is in.
func (k *cluster) end(volumes ...*Volume) {
	for _, s := range k.servers {
		s.listen()
		s.set(func() { s.delay, s.fail, s.mute = nil, nil, false })
	}
	for _, v := range volumes {
		_ = v.c.Close()
	}
	time.Sleep(time.Minute) // whatever the network still holds
}

func leaseRunsOut(t *testing.T, without rules.Set) error {
	k := newCluster(3, testSize, 3, 2)
	a := k.open(t, OpenOptions{leftOut: without})
	defer func() { k.end(a) }()
	if err := write(a, 0, 1); err != nil {
		return err
	}
	k.meta.mu.Lock()
	k.meta.deafTo[1] = true
	k.meta.mu.Unlock()
	time.Sleep(4500 * time.Millisecond)
	r := submit(a, blocktest.Read(0, 4096))
	if r.within(time.Second) {
		return fmt.Errorf("a read was served when another could have had the lease: %v", r.Err)
	}
	time.Sleep(fakeLease)
	b := k.open(t, OpenOptions{})
	defer func() { k.end(b) }()
	k.meta.mu.Lock()
	k.meta.deafTo[1] = false
	k.meta.mu.Unlock()
	if !r.within(5*time.Second) || !errors.Is(r.Err, block.ErrLostLease) {
		return fmt.Errorf("after the lease was lost: %v", r.Err)
	}
	return nil
}

func connectionBreaks(t *testing.T, without rules.Set) error {
	k := newCluster(3, testSize, 3, 2)
	v := k.open(t, OpenOptions{leftOut: without})
	defer k.end(v)
	if err := write(v, 0, 2); err != nil {
		return err
	}
	for _, s := range k.servers {
		s.set(func() { s.delay = func(*wire.Call) time.Duration { return time.Second } })
	}
	r := submit(v, blocktest.Write(0, blocktest.Bytes(1, 4096)))
	time.Sleep(100 * time.Millisecond)
	for _, s := range k.servers {
		s.set(func() { s.delay = nil })
		s.hangUp()
	}
	if !r.within(10*time.Second) || r.Err != nil {
		return fmt.Errorf("the write did not survive broken connections: %v", r.Err)
	}
	return holds(v, 0, 1)
}

func overlappingWrites(t *testing.T, without rules.Set) error {
	k := newCluster(3, testSize, 3, 2)
	v := k.open(t, OpenOptions{leftOut: without})
	defer k.end(v)
	if err := write(v, 0, 1); err != nil {
		return err
	}
	for i, s := range k.servers { // each applies what comes together in another order
		n := 0
		s.set(func() {
			s.delay = func(*wire.Call) time.Duration { n++; return time.Duration((n+i)%3+1) * time.Millisecond }
		})
	}
	a, b := submit(v, blocktest.Write(0, blocktest.Bytes(2, 4096))), submit(v, blocktest.Write(0, blocktest.Bytes(3, 4096)))
	<-a.done
	<-b.done
	return k.differences()
}

func deadReplica(t *testing.T, without rules.Set) error {
	k := newCluster(3, testSize, 3, 2)
	v := k.open(t, OpenOptions{leftOut: without})
	defer func() { k.meta.set(func() { k.meta.down = false }); k.end(v) }()
	if err := write(v, 0, 1); err != nil {
		return err
	}
	k.meta.set(func() { k.meta.down = true })
	k.servers[1].goDeaf()
	r := submit(v, blocktest.Write(0, blocktest.Bytes(2, 4096)))
	time.Sleep(time.Millisecond)
	k.servers[1].kill(false)
	if r.within(2 * time.Second) {
		return errors.New("a write was acknowledged while a replica that missed it was in sync")
	}
	k.meta.set(func() { k.meta.down = false })
	if !r.within(3*time.Second) || r.Err != nil || slices.Contains(k.insync(0), k.servers[1].id) {
		return fmt.Errorf("the write did not go on: %v, in sync %v", r.Err, k.insync(0))
	}
	return errors.Join(holds(v, 0, 2), k.differences())
}

func leftAndCameBack(t *testing.T, without rules.Set) error {
	k := newCluster(2, testSize, 2, 1)
	v := k.open(t, OpenOptions{leftOut: without})
	defer k.end(v)
	if err := write(v, 0, 1); err != nil {
		return err
	}
	a, b := k.servers[0], k.servers[1]
	b.goDeaf()
	r := submit(v, blocktest.Write(0, blocktest.Bytes(2, 4096))) // a applies it
	time.Sleep(time.Millisecond)
	b.set(func() { b.deaf = false }) // reachable for the metadata servers; its queue waits on
	k.meta.mu.Lock()
	dropped := k.meta.drop(k.meta.chunks[0], a.id)
	k.meta.mu.Unlock()
	k.meta.rebuild(func() { time.Sleep(time.Millisecond) })
	if !dropped || !slices.Contains(k.insync(0), a.id) {
		return errors.New("the scenario does not come about")
	}
	b.set(func() { b.deaf = true })
	b.listen()
	if !r.within(10*time.Second) || r.Err != nil {
		return fmt.Errorf("the write did not go on: %v", r.Err)
	}
	return errors.Join(holds(v, 0, 2), k.differences())
}

func lateWriteOfOldHolder(t *testing.T, without rules.Set) error {
	k := newCluster(2, testSize, 2, 1)
	a := k.open(t, OpenOptions{})
	if err := write(a, 0, 1); err != nil {
		return err
	}
	for _, s := range k.servers {
		s.set(func() {
			s.late = without != 0
			s.delay = func(*wire.Call) time.Duration { return 15 * time.Second }
		})
	}
	a.opt.leftOut |= rules.R1                               // its clock stands still
	submit(a, blocktest.Write(0, blocktest.Bytes(2, 4096))) // lost in the network for a while
	a.c.mu.Lock()
	a.c.links[1025].slow.Add(1) // nor does it give up
	a.c.links[1026].slow.Add(1)
	a.c.mu.Unlock()
	time.Sleep(100 * time.Millisecond)
	for _, s := range k.servers {
		s.set(func() { s.delay = nil })
	}
	k.meta.set(func() { k.meta.deafTo[1] = true })
	time.Sleep(fakeLease)
	b := k.open(t, OpenOptions{leftOut: without})
	defer func() { k.end(a, b) }()
	if err := write(b, 0, 3); err != nil {
		return err
	}
	time.Sleep(10 * time.Second)
	return holds(b, 0, 3)
}

func unreachableAtOpen(t *testing.T, without rules.Set) error {
	k := newCluster(3, testSize, 3, 2)
	a := k.open(t, OpenOptions{})
	if err := write(a, 0, 1); err != nil {
		return err
	}
	k.meta.set(func() { k.meta.deafTo[1] = true })
	time.Sleep(fakeLease)
	k.cut.Store([2]uint64{2, 1026}, true)
	b := k.open(t, OpenOptions{leftOut: without})
	defer func() { k.end(a, b) }()
	if err := holds(b, 0, 1); err != nil {
		return err
	}
	for _, id := range k.insync(0) {
		if s := k.meta.server(id); s.fence[fakeFile] != b.epoch {
			return fmt.Errorf("server %d is in sync and would take the old holder's writes", id)
		}
	}
	return nil
}

func halfWritten(t *testing.T, without rules.Set) error { return halfWrittenChunks(t, without, 1) }

// halfWrittenChunks has a write reach one server only in each of the first chunks, and lets another holder take over.
func halfWrittenChunks(t *testing.T, without rules.Set, chunks int64) error {
	k := newCluster(3, testSize, 3, 2)
	a, err := k.leaveHalfWritten(t, chunks)
	if err != nil {
		return err
	}
	b := k.open(t, OpenOptions{leftOut: without})
	defer func() { k.end(a, b) }()
	for i := range chunks {
		r := blocktest.Read(i*testChunk, 4096)
		if blocktest.Do(b, r); r.Err != nil {
			return r.Err
		}
	}
	return k.differences()
}

// leaveHalfWritten has a write reach one server only in each of the first chunks; then the lease of the volume that wrote is over.
func (k *cluster) leaveHalfWritten(t *testing.T, chunks int64) (*Volume, error) {
	a := k.open(t, OpenOptions{})
	for i := range chunks {
		if err := write(a, i*testChunk, 1); err != nil {
			return a, err
		}
	}
	k.servers[0].goDeaf()
	k.servers[1].goDeaf()
	for i := range chunks {
		submit(a, blocktest.Write(i*testChunk, blocktest.Bytes(2, 4096))) // reaches one
	}
	time.Sleep(time.Millisecond)
	k.meta.set(func() { k.meta.deafTo[1] = true }) // and then its sender is no more
	for id := range uint64(3) {
		k.cut.Store([2]uint64{1, 1025 + id}, true)
	}
	for _, s := range k.servers {
		s.hangUp()
		s.listen()
	}
	time.Sleep(fakeLease)
	return a, nil
}

func TestEveryOpenChunkIsComparedAlsoWhenTheirListComesInParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		if err := halfWrittenChunks(t, 0, 2*fencePage+1); err != nil {
			t.Error(err)
		}
	})
}

func slowWrite(t *testing.T, without rules.Set) error {
	k := newCluster(2, testSize, 2, 1)
	v := k.open(t, OpenOptions{leftOut: without})
	defer k.end(v)
	if err := write(v, 4096, 1); err != nil {
		return err
	}
	time.Sleep(10 * time.Second)
	if k.servers[0].isOpen(0) || k.servers[1].isOpen(0) {
		return errors.New("an idle chunk was not settled")
	}
	k.servers[1].set(func() {
		k.servers[1].delay = func(w *wire.Call) time.Duration {
			if w.Op == wire.OpWrite {
				return 2500 * time.Millisecond
			}
			return 0
		}
	})
	r := submit(v, blocktest.Write(0, blocktest.Bytes(2, 4096)))
	for !r.within(100 * time.Millisecond) {
		if !k.servers[0].isOpen(0) {
			return errors.New("a server forgot that the chunk is open while a write is in flight")
		}
	}
	return r.Err
}

func powerCut(t *testing.T, without rules.Set) error {
	k := newCluster(2, testSize, 2, 1)
	v := k.open(t, OpenOptions{leftOut: without})
	if err := errors.Join(write(v, 0, 1), flush(v)); err != nil {
		return err
	}
	for _, s := range k.servers {
		s.kill(true)
	}
	k.meta.set(func() { k.meta.deafTo[1] = true })
	for _, s := range k.servers {
		k.meta.admit(s)
	}
	k.meta.resolve()
	time.Sleep(fakeLease)
	b := k.open(t, OpenOptions{})
	defer k.end(v, b)
	return holds(b, 0, 1)
}

func corruptReplica(t *testing.T, without rules.Set) error {
	k := newCluster(3, testSize, 3, 2)
	v := k.open(t, OpenOptions{leftOut: without})
	defer k.end(v)
	if err := write(v, 0, 1); err != nil {
		return err
	}
	bad := k.meta.server(k.insync(0)[0])
	bad.set(func() { bad.replica(0).corrupt = map[uint32]bool{0: true} })
	if err := holds(v, 0, 1); err != nil {
		return err
	}
	time.Sleep(time.Second)
	if slices.Contains(k.insync(0), bad.id) {
		return errors.New("a corrupt replica is still in sync")
	}
	return holds(v, 0, 1)
}

// set changes the metadata server's behaviour.
func (m *fakeMeta) set(f func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f()
}
