package meta

import (
	"errors"
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
	g := &gate{Transport: own}
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
				g := &gate{Transport: &c.other}
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
		g := &gate{Transport: other}
		time.AfterFunc(3*preVotePause-1, g.shut)
		var out raft.RequestPreVoteResponse
		if err := g.RequestPreVote("2", "other", &raft.RequestPreVoteRequest{Term: 5}, &out); !errors.Is(err, errShut) || time.Since(other.began) != 3*preVotePause {
			t.Errorf("after %v: %v", time.Since(other.began), err)
		}
	})
}
