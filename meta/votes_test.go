package meta

import (
	"sync"
	"testing"

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
