package cs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
	"pstorage/cs/wire"
	"pstorage/meta/metapb"
)

const (
	// tableStep is how many blocks are compared at once.
	tableStep = wire.MaxSums
	// runBlocks is the most blocks that one read of a pull asks for.
	runBlocks = 32
	// pullWindow is how many reads of one pull are under way.
	pullWindow = 16
	// sourceTimeout is how long a pull waits for a source that answers nothing.
	sourceTimeout = 5 * time.Second
	// maxTorn is how often a read whose data do not match their sums is repeated: the source may have been writing the block.
	maxTorn = 8
)

var errSource = errors.New("source does not answer")

// sourceCorrupt: a block of the source does not match its sum.
type sourceCorrupt struct{ block uint64 }

func (e sourceCorrupt) Error() string {
	return fmt.Sprintf("block %d of the source does not match its sum", e.block)
}

// puller copies into a Syncing replica what differs from a source (R7 step 4).
type puller struct {
	a       *attachment
	id      chunk.ID
	version uint64
	layer   uint32
	below   uint32 // layers right below that are a part of it
	blocks  uint32
	conn    *wire.Conn
	limit   *limiter
	moved   atomic.Uint64 // bytes written here
	done    atomic.Uint64 // blocks, of all layers
	torn    int           // reads repeated since the last that was good
	busy    bool          // clients use the source much

	idle  []*wire.Call    // not under way
	out   int             // under way
	back  chan *wire.Call // answered; room for all, so that completing never waits
	timer *time.Timer
}

// CompleteCalls implements wire.Completer.
func (p *puller) CompleteCalls(batch []*wire.Call) {
	for _, c := range batch {
		p.back <- c
	}
}

// run pulls all layers, then makes them durable.
func (p *puller) run(ctx context.Context, m *metapb.Pull) error {
	free, err := p.a.s.pulls.slots.take(ctx)
	if err != nil {
		return err
	}
	defer free()
	conn, release, err := p.a.s.peers.get(ctx, m.SourceAddress, m.Source)
	if err != nil {
		return err
	}
	defer release()
	if err := p.a.s.engine.MarkUnlisted(p.id.File, m.Layers); err != nil {
		return err
	}
	p.conn, p.back = conn, make(chan *wire.Call, pullWindow)
	p.timer = time.NewTimer(sourceTimeout)
	defer p.timer.Stop()
	for range pullWindow {
		p.idle = append(p.idle, &wire.Call{Done: p})
	}
	last := uint32(0)
	for _, layer := range p.standing(m.Layers) {
		p.layer, p.below, last = layer, layer-last-1, layer
		for first := uint32(0); first < p.blocks; first += tableStep {
			if err := p.piece(ctx, first, min(tableStep, p.blocks-first)); err != nil {
				return err
			}
		}
	}
	synced, err := p.a.s.pulls.syncs.take(ctx)
	if err != nil {
		return err
	}
	defer synced()
	free()
	return p.a.s.engine.SyncReplica(p.id, p.version)
}

// standing are the file's layers that are not gone here. What they leave out is pulled as a part of the next, so that it makes no difference
// which of the two servers has merged it already. Lower layers come first: what the source moves up meanwhile is pulled twice, never missed.
func (p *puller) standing(layers []uint32) []uint32 {
	gone := p.a.s.engine.Gone(p.id.File)
	return slices.DeleteFunc(slices.Clone(layers), gone.Has)
}

// piece pulls what differs in some blocks of the layer.
func (p *puller) piece(ctx context.Context, first, n uint32) error {
	need, err := p.compare(ctx, first, n)
	if err != nil {
		return err
	}
	for i := uint32(0); i < n; {
		if !need[i] {
			i++
			continue
		}
		run := uint32(1)
		for run < runBlocks && i+run < n && need[i+run] {
			run++
		}
		if err := p.fetch(ctx, first+i, run); err != nil {
			return err
		}
		i += run
	}
	for p.out > 0 {
		if err := p.settle(ctx); err != nil {
			return err
		}
	}
	p.done.Add(uint64(n))
	return nil
}

// compare tells which blocks are to be pulled: those whose code differs from the source's. Asked this way (Peer, alone), the engine first
// makes absent what does not match its code, where the base is doubtful.
func (p *puller) compare(ctx context.Context, first, n uint32) ([]bool, error) {
	theirs, err := p.table(ctx, first, n)
	if err != nil {
		return nil, err
	}
	ours := make([]uint32, n)
	access := store.Access{Version: p.version, Layer: p.layer, Below: p.below, Peer: true}
	if err := p.a.s.engine.Table(p.id, access, first*chunk.BlockSize, n*chunk.BlockSize, ours, true); err != nil {
		return nil, err
	}
	need := make([]bool, n)
	for i := range need {
		need[i] = ours[i] != theirs[i]
	}
	return need, nil
}

// table asks the source for its codes.
func (p *puller) table(ctx context.Context, first, n uint32) ([]uint32, error) {
	c := p.call(wire.OpTableLayer, first, n)
	p.conn.Send([]*wire.Call{c})
	if err := p.await(ctx, &c); err != nil {
		return nil, err
	}
	p.idle = append(p.idle, c)
	return c.Codes, p.outcome(c)
}

// call takes an idle call for blocks of the layer at the source.
func (p *puller) call(op wire.Op, first, n uint32) *wire.Call {
	c := p.idle[len(p.idle)-1]
	p.idle = p.idle[:len(p.idle)-1]
	p.out++
	c.Op, c.Flags, c.Chunk, c.Layer, c.Epoch, c.Version = op, wire.FlagPeer, p.id, p.layer, uint64(p.below), p.version
	c.Offset, c.Length = first*chunk.BlockSize, n*chunk.BlockSize
	return c
}

// fetch asks the source for blocks; it first waits for an older answer if too many are under way.
func (p *puller) fetch(ctx context.Context, first, n uint32) error {
	if len(p.idle) == 0 {
		if err := p.settle(ctx); err != nil {
			return err
		}
	}
	if err := p.a.s.pace.wait(ctx, int(n)*chunk.BlockSize, p.busy); err != nil {
		return err
	}
	if err := p.limit.wait(ctx, int(n)*chunk.BlockSize); err != nil {
		return err
	}
	c := p.call(wire.OpReadLayer, first, n)
	if len(c.Dst) < int(c.Length) {
		c.Dst = make([]byte, runBlocks*chunk.BlockSize)
	}
	p.conn.Send([]*wire.Call{c})
	return nil
}

// settle waits for one answer and writes it.
func (p *puller) settle(ctx context.Context) error {
	var c *wire.Call
	if err := p.await(ctx, &c); err != nil {
		return err
	}
	if c.Err == nil && c.Status == wire.Corrupt && p.torn < maxTorn {
		p.torn++
		p.out++
		p.conn.Send([]*wire.Call{c})
		return p.settle(ctx)
	}
	p.idle = append(p.idle, c)
	if err := p.outcome(c); err != nil {
		return err
	}
	p.torn, p.busy = 0, c.Aux0 == wire.Busy
	n, err := p.a.s.engine.Pull(p.id, p.version, p.layer, p.below, c.Offset, c.Codes, chunk.Pack(c.Codes, c.Dst[:c.Length]))
	p.moved.Add(uint64(n))
	return err
}

// await waits for any call to come back. A call given up is the connection's for good.
func (p *puller) await(ctx context.Context, c **wire.Call) error {
	p.timer.Reset(sourceTimeout)
	select {
	case *c = <-p.back:
		p.out--
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.timer.C:
		return errSource
	}
}

func (p *puller) outcome(c *wire.Call) error {
	if c.Err != nil {
		return c.Err
	}
	switch c.Status {
	case wire.OK:
		return nil
	case wire.Corrupt:
		return sourceCorrupt{c.Aux0}
	}
	return fmt.Errorf("source answers %v (%d) to %v", c.Status, c.Aux0, c.Op)
}
