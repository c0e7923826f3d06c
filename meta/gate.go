package meta

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// preVotePause is between two requests for a pre-vote.
const preVotePause = 50 * time.Millisecond

// errShut: this server says nothing more to the others.
var errShut = errors.New("this metadata server has failed and sends nothing")

// gate is a transport that can be shut: then nothing is sent any more. A leader whose disk hangs goes on sending heartbeats, from
// goroutines that need no disk; shut, it is a leader no longer for the others, whatever its own goroutines wait for.
//
// Shutting it also ends what is under way: Raft, when it is to shut down, waits for each of its requests, which to a silent server last as long as
// the transport has patience, and without end for a pipeline whose answers nobody takes any more.
type gate struct {
	raft.Transport
	shutting sync.Once
	closed   chan struct{}

	mu        sync.Mutex
	pipelines map[*gatedPipeline]bool
}

func newGate(t raft.Transport) *gate {
	return &gate{Transport: t, closed: make(chan struct{}), pipelines: map[*gatedPipeline]bool{}}
}

func (g *gate) shut() {
	g.shutting.Do(func() { close(g.closed) })
	g.mu.Lock()
	defer g.mu.Unlock()
	for p := range g.pipelines {
		_ = p.AppendPipeline.Close() // it has no errors
	}
	clear(g.pipelines)
}

func (g *gate) isShut() bool {
	select {
	case <-g.closed:
		return true
	default:
		return false
	}
}

// enter notes a pipeline, unless the gate has been shut.
func (g *gate) enter(p *gatedPipeline) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.isShut() {
		return false
	}
	g.pipelines[p] = true
	return true
}

func (g *gate) leave(p *gatedPipeline) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.pipelines, p)
}

// pass gives the answer of one request, or errShut as soon as the gate is shut.
func pass[T any](g *gate, out *T, ask func(out *T) error) error {
	if g.isShut() {
		return errShut
	}
	own, asked := new(T), make(chan error, 1) // of its own: the request may end after its caller has gone on
	go func() { asked <- ask(own) }()
	select {
	case err := <-asked:
		*out = *own
		return err
	case <-g.closed:
		return errShut
	}
}

// AppendEntries is the transport's.
func (g *gate) AppendEntries(id raft.ServerID, at raft.ServerAddress, in *raft.AppendEntriesRequest, out *raft.AppendEntriesResponse) error {
	return pass(g, out, func(out *raft.AppendEntriesResponse) error { return g.Transport.AppendEntries(id, at, in, out) })
}

// AppendEntriesPipeline is the transport's.
func (g *gate) AppendEntriesPipeline(id raft.ServerID, at raft.ServerAddress) (raft.AppendPipeline, error) {
	if g.isShut() {
		return nil, errShut
	}
	p, err := g.Transport.AppendEntriesPipeline(id, at)
	if err != nil {
		return nil, err
	}
	gated := &gatedPipeline{p, g}
	if !g.enter(gated) {
		return nil, errors.Join(errShut, p.Close())
	}
	return gated, nil
}

// InstallSnapshot is the transport's.
func (g *gate) InstallSnapshot(id raft.ServerID, at raft.ServerAddress, in *raft.InstallSnapshotRequest, out *raft.InstallSnapshotResponse, data io.Reader) error {
	return pass(g, out, func(out *raft.InstallSnapshotResponse) error {
		return g.Transport.InstallSnapshot(id, at, in, out, data)
	})
}

// RequestVote is the transport's.
func (g *gate) RequestVote(id raft.ServerID, at raft.ServerAddress, in *raft.RequestVoteRequest, out *raft.RequestVoteResponse) error {
	return pass(g, out, func(out *raft.RequestVoteResponse) error {
		return onLiveConnection(func() error { return g.Transport.RequestVote(id, at, in, out) })
	})
}

// RequestPreVote is the transport's.
func (g *gate) RequestPreVote(id raft.ServerID, at raft.ServerAddress, in *raft.RequestPreVoteRequest, out *raft.RequestPreVoteResponse) error {
	t, ok := g.Transport.(raft.WithPreVote)
	if !ok {
		return errors.ErrUnsupported
	}
	return pass(g, out, func(out *raft.RequestPreVoteResponse) error {
		return g.untilFree(in, out, func() error {
			return onLiveConnection(func() error { return t.RequestPreVote(id, at, in, out) })
		})
	})
}

// untilFree asks for a pre-vote again and again, for as long as an election lasts at least, where it is refused. A server refuses while it has not yet
// missed its leader itself, which it does a moment later; Raft asks once in each election. Of two servers that are left, only the one whose
// log is longer can be elected: refused by chance because it was first, it would lose one to two seconds. A pre-vote binds nobody; an answer that
// comes when the election is over is not looked at.
func (g *gate) untilFree(in *raft.RequestPreVoteRequest, out *raft.RequestPreVoteResponse, ask func() error) error {
	for began := time.Now(); ; {
		*out = raft.RequestPreVoteResponse{}
		err := ask()
		if err != nil || out.Granted || out.Term > in.Term || time.Since(began) >= electionTimeout {
			return err
		}
		select {
		case <-time.After(preVotePause):
		case <-g.closed:
			return errShut
		}
	}
}

// onLiveConnection asks again where the connection turns out to be one to a process that is no more: the transport keeps connections for later, and
// each of those to a server that was restarted would cost an election, since Raft asks a server once in each. A server that cannot be dialled, or
// is silent, is asked once.
func onLiveConnection(ask func() error) (err error) {
	began := time.Now()
	for range raftConnections + 1 {
		var failed *net.OpError
		err = ask()
		if err == nil || errors.As(err, &failed) && failed.Op == "dial" || time.Since(began) >= raftTimeout {
			return err
		}
	}
	return err
}

// TimeoutNow is the transport's.
func (g *gate) TimeoutNow(id raft.ServerID, at raft.ServerAddress, in *raft.TimeoutNowRequest, out *raft.TimeoutNowResponse) error {
	return pass(g, out, func(out *raft.TimeoutNowResponse) error { return g.Transport.TimeoutNow(id, at, in, out) })
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
func (p *gatedPipeline) AppendEntries(in *raft.AppendEntriesRequest, out *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if p.gate.isShut() {
		return nil, errShut
	}
	return p.AppendPipeline.AppendEntries(in, out)
}

// Close is the pipeline's.
func (p *gatedPipeline) Close() error {
	p.gate.leave(p)
	return p.AppendPipeline.Close()
}
