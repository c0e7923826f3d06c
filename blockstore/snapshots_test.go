package blockstore

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
)

// load writes to a few blocks all the time, and keeps for each what was asked for and what was acknowledged last.
type load struct {
	v            *Volume
	mu           sync.Mutex
	begun, ended [8]uint64
	errs         []error
	stop         chan struct{}
	wg           sync.WaitGroup
}

func startLoad(v *Volume) *load {
	l := &load{v: v, stop: make(chan struct{})}
	for i := range l.begun {
		l.wg.Go(func() {
			for n := uint64(1); ; n++ {
				select {
				case <-l.stop:
					return
				default:
				}
				l.mu.Lock()
				l.begun[i] = n
				l.mu.Unlock()
				r := blocktest.Write(l.at(i), blocktest.Bytes(n, block.Size))
				if i == 0 {
					r.Flags = block.Atomic
				}
				blocktest.Do(l.v, r)
				l.mu.Lock()
				if l.ended[i] = n; r.Err != nil {
					l.errs = append(l.errs, r.Err)
				}
				l.mu.Unlock()
			}
		})
	}
	return l
}

// at is the place of a writer's block: two to a chunk.
func (l *load) at(i int) int64 { return int64(i/2)*testChunk + int64(i%2)*block.Size }

func (l *load) end() error {
	close(l.stop)
	l.wg.Wait()
	return errors.Join(l.errs...)
}

// check compares a snapshot with what was acknowledged before it was asked for and what was asked for by the time it was taken.
func (l *load) check(k *cluster, layer uint32, least, most [8]uint64) error {
	have, err := k.frozen(layer)
	if err != nil {
		return err
	}
	for i := range least {
		b := have[uint32(i/2)][uint32(i%2)]
		ok := false
		for n := least[i]; n <= most[i]; n++ {
			ok = ok || n == 0 && b == nil || string(b) == string(blocktest.Bytes(n, block.Size))
		}
		if !ok {
			return fmt.Errorf("block of writer %d is none of the writes %d to %d", i, least[i], most[i])
		}
	}
	return nil
}

func (l *load) state() (begun, ended [8]uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.begun, l.ended
}

func TestSnapshotsHaveWhatWasAcknowledgedAndNothingLater(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			k := newCluster(4, testSize, 3, 2)
			v := k.open(t, OpenOptions{})
			defer func() { k.end(v) }()
			rnd := rand.New(rand.NewPCG(seed, 5))
			for _, s := range k.servers {
				r := rand.New(rand.NewPCG(rnd.Uint64(), 5))
				s.set(func() { s.delay = randomDelay(r, 20*time.Millisecond) })
			}
			l := startLoad(v)
			type taken struct {
				layer       uint32
				least, most [8]uint64
			}
			var all []taken
			for n := range 6 {
				time.Sleep(time.Duration(rnd.Int64N(int64(time.Second))))
				if n == 3 {
					k.servers[rnd.IntN(4)].hangUp()
				}
				_, least := l.state()
				layer, err := k.meta.take(fmt.Sprint("snapshot ", n))
				if err != nil {
					t.Fatal(err)
				}
				most, _ := l.state()
				all = append(all, taken{layer, least, most})
			}
			if err := l.end(); err != nil {
				t.Fatal(err)
			}
			for _, s := range all {
				if err := l.check(k, s.layer, s.least, s.most); err != nil {
					t.Errorf("seed %d, layer %d: %v", seed, s.layer, err)
				}
			}
			if got := v.metrics.snapshots.Load(); got != 6 {
				t.Errorf("seed %d: %d snapshots counted", seed, got)
			}
		})
	}
}

func TestSnapshotsAskedForTogetherHoldTheVolumeTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		defer func() { k.end(v) }()
		for i, s := range k.servers {
			s.set(func() { s.delay = randomDelay(rand.New(rand.NewPCG(uint64(i), 1)), 20*time.Millisecond) })
		}
		l := startLoad(v)
		time.Sleep(time.Second)
		a, b := k.meta.request("one"), k.meta.request("other")
		<-a.decided
		<-b.decided
		if !a.taken || !b.taken || a.layer == b.layer {
			t.Errorf("taken: %v, layer %d; %v, layer %d", a.taken, a.layer, b.taken, b.layer)
		}
		if err := l.end(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		if got := v.layer.Load(); got != 3 {
			t.Errorf("writes go to layer %d, want 3", got)
		}
	})
}
