package faults

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"pstorage/itest/nbd"
)

const (
	probeBlock = 4096
	// probePause is between the end of a request and the next.
	probePause = 3 * time.Millisecond
	// probeFresh: one request in so many goes where nothing has been written, and needs the metadata servers.
	probeFresh = 50
	// notable waits are remembered one by one.
	notable = 20 * time.Millisecond
)

// Probe is a user who does one small request at a time.
type Probe struct {
	client *nbd.Client
	used   int64 // blocks that are written again and again
	fresh  int64 // the next block that was never written
	step   int64 // from one fresh block to the next
	random *rand.Rand
	counts []uint64 // of the writes of each used block
	stop   chan struct{}
	done   chan struct{}

	mu       sync.Mutex
	waits    []Wait
	Requests int
	err      error
}

// Wait is a request that took long.
type Wait struct {
	What  string
	Began time.Time
	Took  time.Duration
}

func (w Wait) String() string {
	return fmt.Sprintf("%s of %s, begun at %s", seconds(w.Took), w.What, w.Began.Format("15:04:05.000"))
}

// StartProbe uses a new volume: the first bytes, which it fills first, for most of its requests; beyond, one place in each chunk.
func StartProbe(uri string, used, chunk int64, seed uint64) (*Probe, error) {
	client, err := nbd.Connect(uri)
	if err != nil {
		return nil, err
	}
	p := &Probe{
		client: client, used: used / probeBlock, fresh: used / probeBlock, step: chunk / probeBlock, random: rand.New(rand.NewPCG(seed, 3)),
		counts: make([]uint64, used/probeBlock), stop: make(chan struct{}), done: make(chan struct{}),
	}
	for i := range p.used {
		if err := p.write(i); err != nil {
			client.Close()
			return nil, fmt.Errorf("probe: %w", err)
		}
	}
	go p.run()
	return p, nil
}

// run does requests until it is told to stop, or one fails.
func (p *Probe) run() {
	defer close(p.done)
	for {
		select {
		case <-p.stop:
			return
		case <-time.After(probePause):
		}
		began := time.Now()
		what, err := p.request()
		p.note(Wait{what, began, time.Since(began)}, err)
		if err != nil {
			return
		}
	}
}

func (p *Probe) note(w Wait, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Requests++
	if p.err = err; w.Took >= notable {
		p.waits = append(p.waits, w)
	}
}

func (p *Probe) request() (what string, err error) {
	block := p.random.Int64N(p.used)
	switch dice := p.random.IntN(2 * probeFresh); {
	case dice < 2 && p.fresh < p.client.Size/probeBlock:
		p.fresh += p.step
		return "the first write of a chunk", p.client.Write(content(p.fresh-p.step, 1), (p.fresh-p.step)*probeBlock)
	case dice < probeFresh:
		return "a read", p.read(block)
	}
	return "a write", p.write(block)
}

// content is what the n-th write of a block leaves there.
func content(block int64, n uint64) []byte {
	var unit [16]byte
	binary.LittleEndian.PutUint64(unit[:], uint64(block))
	binary.LittleEndian.PutUint64(unit[8:], n)
	return bytes.Repeat(unit[:], probeBlock/len(unit))
}

func (p *Probe) write(block int64) error {
	p.counts[block]++
	return p.client.Write(content(block, p.counts[block]), block*probeBlock)
}

func (p *Probe) read(block int64) error {
	got := make([]byte, probeBlock)
	if err := p.client.Read(got, block*probeBlock); err != nil {
		return err
	}
	if !bytes.Equal(got, content(block, p.counts[block])) {
		return fmt.Errorf("block %d: write %d was acknowledged last, found is write %d of block %d", block, p.counts[block],
			binary.LittleEndian.Uint64(got[8:]), binary.LittleEndian.Uint64(got))
	}
	return nil
}

// Stop ends the probe, reads all once more, and returns the first thing that went wrong.
func (p *Probe) Stop() error {
	close(p.stop)
	<-p.done
	defer p.client.Close()
	for i := int64(0); i < p.used && p.err == nil; i++ {
		p.err = p.read(i)
	}
	if p.err != nil {
		return fmt.Errorf("probe: %w", p.err)
	}
	return nil
}

// Failed tells whether a request has failed.
func (p *Probe) Failed() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Longest is the longest wait most of which was in that time; at least what is worth noting.
func (p *Probe) Longest(from, to time.Time) (longest Wait) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.waits {
		if middle := w.Began.Add(w.Took / 2); !middle.Before(from) && middle.Before(to) && w.Took > longest.Took {
			longest = w
		}
	}
	return longest
}
