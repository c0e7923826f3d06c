package meta

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// restartable answers requests for votes on its transport, as many at a time as are asked for together.
type restartable struct {
	*raft.NetworkTransport
	together sync.WaitGroup
}

func newRestartable(t *testing.T, address string, together int) *restartable {
	t.Helper()
	transport, err := tcpTransport(address, hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	v := &restartable{NetworkTransport: transport}
	v.together.Add(together)
	go func() {
		for range together {
			rpc := <-transport.Consumer()
			go func() {
				v.together.Done()
				v.together.Wait() // each has a connection of its own
				rpc.Respond(&raft.RequestVoteResponse{Granted: true}, nil)
			}()
		}
	}()
	return v
}

// A server that was restarted is asked for its vote although connections to the process before it are kept for later.
func TestARestartedServerIsAskedForItsVoteAtOnce(t *testing.T) {
	own, err := tcpTransport("127.0.0.1:0", hclog.NewNullLogger())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	g := newGate(own)
	old := newRestartable(t, "127.0.0.1:0", raftConnections)
	address := old.LocalAddr()
	ask := func() error {
		return g.RequestVote("2", address, &raft.RequestVoteRequest{Term: 1}, &raft.RequestVoteResponse{})
	}
	var asking sync.WaitGroup
	for range raftConnections {
		asking.Go(func() {
			if err := ask(); err != nil {
				t.Error(err)
			}
		})
	}
	asking.Wait()
	old.CloseStreams()
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	restarted := newRestartable(t, string(address), 1)
	defer restarted.Close()
	if err := ask(); err != nil {
		t.Errorf("not asked: %v", err)
	}
}

// undecided is a transport to a server that refuses its pre-vote for a while.
type undecided struct {
	raft.Transport
	refuses time.Duration
	term    uint64
	fails   error
	began   time.Time
	asked   int
}

func (u *undecided) RequestPreVote(_ raft.ServerID, _ raft.ServerAddress, _ *raft.RequestPreVoteRequest, out *raft.RequestPreVoteResponse) error {
	u.asked++
	out.Term, out.Granted = u.term, time.Since(u.began) >= u.refuses
	return u.fails
}

func TestAPreVoteIsAskedForUntilTheOtherHasMissedTheLeaderToo(t *testing.T) {
	for name, c := range map[string]struct {
		other   undecided
		granted bool
		after   time.Duration
		asked   int
	}{
		"granted":      {undecided{term: 5}, true, 0, 1},
		"a bit later":  {undecided{term: 5, refuses: 120 * time.Millisecond}, true, 3 * preVotePause, 4},
		"never":        {undecided{term: 5, refuses: time.Hour}, false, electionTimeout, 21},
		"a newer term": {undecided{term: 6, refuses: time.Hour}, false, 0, 1},
		"gone":         {undecided{term: 5, refuses: time.Hour, fails: &net.OpError{Op: "dial", Err: errors.New("refused")}}, false, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c.other.began = time.Now()
				g := newGate(&c.other)
				var out raft.RequestPreVoteResponse
				err := g.RequestPreVote("2", "other", &raft.RequestPreVoteRequest{Term: 5}, &out)
				if after := time.Since(c.other.began); !errors.Is(err, c.other.fails) || out.Granted != c.granted || after != c.after || c.other.asked != c.asked {
					t.Errorf("granted %v after %v, asked %d times: %v", out.Granted, after, c.other.asked, err)
				}
			})
		})
	}
}

// A server that is about to end does not go on asking.
func TestAShutServerAsksForNoMorePreVotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := &undecided{term: 5, refuses: time.Hour, began: time.Now()}
		g := newGate(other)
		time.AfterFunc(3*preVotePause-1, g.shut)
		var out raft.RequestPreVoteResponse
		if err := g.RequestPreVote("2", "other", &raft.RequestPreVoteRequest{Term: 5}, &out); !errors.Is(err, errShut) || time.Since(other.began) != 3*preVotePause-1 {
			t.Errorf("after %v: %v", time.Since(other.began), err)
		}
	})
}

// silent is a transport to servers that take requests and never answer.
type silent struct {
	raft.Transport
	end chan struct{}
}

func (s silent) never() error { <-s.end; return io.EOF }

func (s silent) AppendEntries(raft.ServerID, raft.ServerAddress, *raft.AppendEntriesRequest, *raft.AppendEntriesResponse) error {
	return s.never()
}

func (s silent) RequestVote(raft.ServerID, raft.ServerAddress, *raft.RequestVoteRequest, *raft.RequestVoteResponse) error {
	return s.never()
}

func (s silent) RequestPreVote(raft.ServerID, raft.ServerAddress, *raft.RequestPreVoteRequest, *raft.RequestPreVoteResponse) error {
	return s.never()
}

func (s silent) InstallSnapshot(raft.ServerID, raft.ServerAddress, *raft.InstallSnapshotRequest, *raft.InstallSnapshotResponse, io.Reader) error {
	return s.never()
}

func (s silent) TimeoutNow(raft.ServerID, raft.ServerAddress, *raft.TimeoutNowRequest, *raft.TimeoutNowResponse) error {
	return s.never()
}

// Raft waits for its requests before it has shut down: those to a server that was stopped in the middle of an election must not hold it up.
func TestAShutGateWaitsForNoSilentServer(t *testing.T) {
	for name, ask := range map[string]func(g *gate) error{
		"entries": func(g *gate) error {
			return g.AppendEntries("2", "other", &raft.AppendEntriesRequest{}, &raft.AppendEntriesResponse{})
		},
		"vote": func(g *gate) error {
			return g.RequestVote("2", "other", &raft.RequestVoteRequest{}, &raft.RequestVoteResponse{})
		},
		"pre-vote": func(g *gate) error {
			return g.RequestPreVote("2", "other", &raft.RequestPreVoteRequest{}, &raft.RequestPreVoteResponse{})
		},
		"snapshot": func(g *gate) error {
			return g.InstallSnapshot("2", "other", &raft.InstallSnapshotRequest{}, &raft.InstallSnapshotResponse{}, nil)
		},
		"timeout": func(g *gate) error {
			return g.TimeoutNow("2", "other", &raft.TimeoutNowRequest{}, &raft.TimeoutNowResponse{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				other := silent{end: make(chan struct{})}
				defer close(other.end)
				g, began := newGate(other), time.Now()
				time.AfterFunc(time.Second, g.shut)
				if err := ask(g); !errors.Is(err, errShut) || time.Since(began) != time.Second {
					t.Errorf("after %v: %v", time.Since(began), err)
				}
				if err := ask(g); !errors.Is(err, errShut) {
					t.Errorf("asked through a gate that is shut: %v", err)
				}
			})
		})
	}
}
