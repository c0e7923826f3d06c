package meta

import (
	"errors"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// errShut: this server says nothing more to the others.
var errShut = errors.New("this metadata server has failed and sends nothing")

// gate is a transport that can be shut: then nothing is sent any more. A leader whose disk hangs goes on sending heartbeats, from
// goroutines that need no disk; shut, it is a leader no longer for the others, whatever its own goroutines wait for.
type gate struct {
	raft.Transport
	closed atomic.Bool
}

func (g *gate) shut() { g.closed.Store(true) }

func (g *gate) pass(f func() error) error {
	if g.closed.Load() {
		return errShut
	}
	return f()
}

// AppendEntries is the transport's.
func (g *gate) AppendEntries(id raft.ServerID, at raft.ServerAddress, in *raft.AppendEntriesRequest, out *raft.AppendEntriesResponse) error {
	return g.pass(func() error { return g.Transport.AppendEntries(id, at, in, out) })
}

// AppendEntriesPipeline is the transport's.
func (g *gate) AppendEntriesPipeline(id raft.ServerID, at raft.ServerAddress) (raft.AppendPipeline, error) {
	if g.closed.Load() {
		return nil, errShut
	}
	p, err := g.Transport.AppendEntriesPipeline(id, at)
	if err != nil {
		return nil, err
	}
	return &gatedPipeline{p, g}, nil
}

// RequestVote is the transport's.
func (g *gate) RequestVote(id raft.ServerID, at raft.ServerAddress, in *raft.RequestVoteRequest, out *raft.RequestVoteResponse) error {
	return g.pass(func() error { return g.Transport.RequestVote(id, at, in, out) })
}

// RequestPreVote is the transport's.
func (g *gate) RequestPreVote(id raft.ServerID, at raft.ServerAddress, in *raft.RequestPreVoteRequest, out *raft.RequestPreVoteResponse) error {
	t, ok := g.Transport.(raft.WithPreVote)
	if !ok {
		return errors.ErrUnsupported
	}
	return g.pass(func() error { return t.RequestPreVote(id, at, in, out) })
}

// TimeoutNow is the transport's.
func (g *gate) TimeoutNow(id raft.ServerID, at raft.ServerAddress, in *raft.TimeoutNowRequest, out *raft.TimeoutNowResponse) error {
	return g.pass(func() error { return g.Transport.TimeoutNow(id, at, in, out) })
}

// Close is the transport's.
func (g *gate) Close() error {
	g.shut()
	if c, ok := g.Transport.(raft.WithClose); ok {
		return c.Close()
	}
	return nil
}

type gatedPipeline struct {
	raft.AppendPipeline
	gate *gate
}

// AppendEntries is the pipeline's.
func (p *gatedPipeline) AppendEntries(in *raft.AppendEntriesRequest, out *raft.AppendEntriesResponse) (f raft.AppendFuture, err error) {
	err = p.gate.pass(func() (err error) { f, err = p.AppendPipeline.AppendEntries(in, out); return err })
	return f, err
}
