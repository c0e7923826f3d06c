package cs

import (
	"context"
	"net"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
	"pstorage/cs/wire/wiretest"
	"pstorage/meta/metapb"
)

// fakeMDS is a metadata server that the test plays: it hands over each stream.
type fakeMDS struct {
	metapb.UnimplementedChunkServersServer
	t       *testing.T
	streams chan *fakeStream
	client  metapb.ChunkServersClient
	next    atomic.Uint64
}

// fakeStream is one attachment, from the other side.
type fakeStream struct {
	t      *testing.T
	mds    *fakeMDS
	st     metapb.ChunkServers_AttachServer
	end    chan error
	beats  chan *metapb.Heartbeat
	result chan *metapb.Result
	other  chan *metapb.FromServer
	scrubs chan *metapb.Scrubbed
	gone   chan struct{}
}

func newFakeMDS(t *testing.T) *fakeMDS {
	m := &fakeMDS{t: t, streams: make(chan *fakeStream)}
	l := bufconn.Listen(1 << 20)
	srv := grpc.NewServer()
	metapb.RegisterChunkServersServer(srv, m)
	go srv.Serve(l)
	t.Cleanup(srv.Stop)
	conn, err := grpc.NewClient("passthrough:///mds", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return l.Dial() }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	m.client = metapb.NewChunkServersClient(conn)
	return m
}

func (m *fakeMDS) Attach(st metapb.ChunkServers_AttachServer) error {
	f := &fakeStream{t: m.t, mds: m, st: st, end: make(chan error, 1), beats: make(chan *metapb.Heartbeat, 1000),
		result: make(chan *metapb.Result, 1000), other: make(chan *metapb.FromServer, 1000), scrubs: make(chan *metapb.Scrubbed, 1000), gone: make(chan struct{})}
	select {
	case m.streams <- f:
	case <-st.Context().Done():
		return st.Context().Err()
	}
	select {
	case err := <-f.end:
		return err
	case <-st.Context().Done():
		return st.Context().Err()
	}
}

// introduced receives registration and inventory of the next stream.
func (m *fakeMDS) introduced() (f *fakeStream, r *metapb.Register, inventory []*metapb.Replica) {
	m.t.Helper()
	f = <-m.streams
	for {
		msg, err := f.st.Recv()
		if err != nil {
			m.t.Fatal(err)
		}
		switch k := msg.Message.(type) {
		case *metapb.FromServer_Register:
			r = k.Register
		case *metapb.FromServer_Inventory:
			inventory = append(inventory, k.Inventory.Replicas...)
			if k.Inventory.Last {
				return f, r, inventory
			}
		default:
			m.t.Fatalf("%T before the inventory's end", k)
		}
	}
}

// admit ends the admission and sorts what comes afterwards.
func (f *fakeStream) admit(a *metapb.Admission) {
	f.t.Helper()
	a.Last = true
	f.send(&metapb.ToServer{Message: &metapb.ToServer_Admission{Admission: a}})
	go func() {
		defer close(f.gone)
		for {
			msg, err := f.st.Recv()
			if err != nil {
				return
			}
			switch k := msg.Message.(type) {
			case *metapb.FromServer_Heartbeat:
				select {
				case f.beats <- k.Heartbeat:
				default:
				}
			case *metapb.FromServer_Result:
				f.result <- k.Result
			case *metapb.FromServer_Scrubbed:
				f.scrubs <- k.Scrubbed
			default:
				f.other <- msg
			}
		}
	}()
}

func (f *fakeStream) send(m *metapb.ToServer) {
	f.t.Helper()
	if err := f.st.Send(m); err != nil {
		f.t.Fatal(err)
	}
}

// command sends a command without waiting for its result.
func (f *fakeStream) command(c *metapb.Command) uint64 {
	f.t.Helper()
	c.Id = f.mds.next.Add(1)
	f.send(&metapb.ToServer{Message: &metapb.ToServer_Command{Command: c}})
	return c.Id
}

// do sends a command and waits for its result.
func (f *fakeStream) do(c *metapb.Command) *metapb.Result {
	f.t.Helper()
	id := f.command(c)
	r := <-f.result
	if r.Id != id {
		f.t.Fatalf("result of %d where that of %d is due", r.Id, id)
	}
	return r
}

// must wants all of the result to be good.
func (f *fakeStream) must(c *metapb.Command) *metapb.Result {
	f.t.Helper()
	r := f.do(c)
	if r.Error != "" {
		f.t.Fatal(r.Error)
	}
	for _, e := range r.Errors {
		if e != "" {
			f.t.Fatal(e)
		}
	}
	return r
}

// node is a running chunk server with its engine in memory.
type node struct {
	*Server
	engine *wiretest.Engine
	mds    *fakeMDS
	dir    string
}

// testDir is a folder with an identity.
func testDir(t *testing.T, id uint32) string {
	t.Helper()
	dir := t.TempDir()
	if err := saveIdentity(dir, Identity{Cluster: "pcs1", ClusterID: [16]byte{1, 2}, Server: id, Host: "h1"}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func startNode(t *testing.T, id uint32) *node {
	t.Helper()
	n := &node{engine: wiretest.New(), mds: newFakeMDS(t), dir: testDir(t, id)}
	n.start(t)
	return n
}

func (n *node) start(t *testing.T) {
	t.Helper()
	var err error
	n.Server, err = Start(context.Background(), Config{Dir: n.dir, Address: "127.0.0.1:0", Meta: n.mds.client, Engine: n.engine, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
}

// attached admits the node with all it has.
func (n *node) attached() *fakeStream {
	f, _, inventory := n.mds.introduced()
	a := &metapb.Admission{}
	for _, r := range inventory {
		a.Raise = append(a.Raise, &metapb.ChunkAt{File: r.File, Index: r.Index, Version: r.Version})
	}
	f.admit(a)
	<-f.beats // admitted
	return f
}

func at(id chunk.ID, version uint64) *metapb.ChunkAt {
	return &metapb.ChunkAt{File: id.File, Index: id.Index, Version: version}
}

func prepareCommand(id chunk.ID, version uint64, syncing bool, layers ...uint32) *metapb.Command {
	return &metapb.Command{Command: &metapb.Command_Prepare{Prepare: &metapb.Prepare{Chunks: []*metapb.PrepareChunk{{
		File: id.File, Index: id.Index, Blocks: testBlocks, Layers: layers, Epoch: testEpoch, Version: version, Syncing: syncing}}}}}
}

func raiseCommand(chunks ...*metapb.ChunkAt) *metapb.Command {
	return &metapb.Command{Command: &metapb.Command_Raise{Raise: &metapb.Raise{Chunks: chunks}}}
}

func pullCommand(id chunk.ID, version uint64, from *node, layers ...uint32) *metapb.Command {
	return &metapb.Command{Command: &metapb.Command_Pull{Pull: &metapb.Pull{Chunk: at(id, version), Source: from.ID(),
		SourceAddress: from.Addr(), Layers: layers, Blocks: testBlocks}}}
}

func (n *node) state(t *testing.T, id chunk.ID) store.Replica {
	t.Helper()
	r, ok := n.engine.Replica(id)
	if !ok {
		t.Fatalf("no replica of %v", id)
	}
	return r
}
