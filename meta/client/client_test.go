package client

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"pstorage/meta/metapb"
)

// fake is a metadata server whose answers are scripted.
type fake struct {
	metapb.UnimplementedMetaServer
	metapb.UnimplementedChunkServersServer
	address string

	mu    sync.Mutex
	calls int
	say   func(call int) error // nil: do it
	files map[string]*metapb.FileInfo

	members *metapb.MembersReply // nil: not answered
	hang    chan struct{}        // not nil: calls wait for it
}

// Members is answered without being counted.
func (f *fake) Members(context.Context, *metapb.MembersRequest) (*metapb.MembersReply, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.members == nil {
		return nil, status.Error(codes.Unavailable, "scripted")
	}
	return f.members, nil
}

func (f *fake) tell(term uint64, leader string, all ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.members = &metapb.MembersReply{Term: term, Leader: leader, ClientAddresses: all}
}

func serve(t *testing.T, say func(call int) error) *fake {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fake{address: l.Addr().String(), say: say, files: map[string]*metapb.FileInfo{}}
	g := grpc.NewServer()
	metapb.RegisterMetaServer(g, f)
	metapb.RegisterChunkServersServer(g, f)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return f
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls
}

func (f *fake) called() error {
	if f.hang != nil {
		<-f.hang
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	return f.say(f.calls)
}

func (f *fake) Status(context.Context, *metapb.StatusRequest) (*metapb.StatusReply, error) {
	return &metapb.StatusReply{Cluster: f.address}, f.called()
}

func (f *fake) Create(_ context.Context, in *metapb.CreateRequest) (*metapb.FileInfo, error) {
	err := f.called()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && f.files[in.Path] != nil {
		return nil, status.Error(codes.AlreadyExists, "already exists")
	}
	f.files[in.Path] = &metapb.FileInfo{Path: in.Path, Size: in.Size, Own: &metapb.Attributes{ChunkSize: 64 << 20}}
	return f.files[in.Path], err
}

func (f *fake) Lookup(_ context.Context, in *metapb.LookupRequest) (*metapb.FileInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.files[in.Path], nil
}

func (f *fake) Remove(_ context.Context, in *metapb.RemoveRequest) (*metapb.RemoveReply, error) {
	err := f.called()
	f.mu.Lock()
	defer f.mu.Unlock()
	if err == nil && f.files[in.Path] == nil {
		return nil, status.Error(codes.NotFound, "no such file")
	}
	delete(f.files, in.Path)
	return &metapb.RemoveReply{}, err
}

// DeleteSnapshot deletes at once what is in files under its id.
func (f *fake) DeleteSnapshot(ctx context.Context, in *metapb.DeleteSnapshotRequest) (*metapb.DeleteSnapshotReply, error) {
	_, err := f.Remove(ctx, &metapb.RemoveRequest{Path: string(in.Id)})
	return &metapb.DeleteSnapshotReply{}, err
}

// DeleteExport deletes what is in files under its name.
func (f *fake) DeleteExport(ctx context.Context, in *metapb.DeleteExportRequest) (*metapb.DeleteExportReply, error) {
	_, err := f.Remove(ctx, &metapb.RemoveRequest{Path: in.Name})
	return &metapb.DeleteExportReply{}, err
}

func (f *fake) Attach(grpc.BidiStreamingServer[metapb.FromServer, metapb.ToServer]) error {
	return f.called()
}

func with(detail protoadapt.MessageV1) error {
	s, err := status.New(codes.Unavailable, "scripted").WithDetails(detail)
	if err != nil {
		return err
	}
	return s.Err()
}

func notLeading(leader string) error { return with(&metapb.NotLeader{Leader: leader}) }

func notNow() error { return with(durationpb.New(time.Millisecond)) }

func lost() error { return status.Error(codes.Unavailable, "connection lost") }

func always(err error) func(int) error { return func(int) error { return err } }

func newClient(t *testing.T, addrs ...string) (*Client, context.Context) {
	t.Helper()
	c, err := New(addrs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return c, ctx
}

func TestTheHintOfAFollowerIsFollowed(t *testing.T) {
	leader := serve(t, always(nil))
	follower := serve(t, always(notLeading(leader.address)))
	c, ctx := newClient(t, follower.address)
	for range 3 {
		r, err := c.Status(ctx, &metapb.StatusRequest{})
		if err != nil || r.Cluster != leader.address {
			t.Fatalf("%v, %v", r, err)
		}
	}
	if follower.count() != 1 {
		t.Errorf("the follower was asked %d times: the client does not remember who leads", follower.count())
	}
}

func TestWithoutAHintAllServersAreTried(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	follower, leader := serve(t, always(notLeading(""))), serve(t, always(nil))
	c, ctx := newClient(t, dead, follower.address, leader.address)
	if r, err := c.Status(ctx, &metapb.StatusRequest{}); err != nil || r.Cluster != leader.address {
		t.Fatalf("%v, %v", r, err)
	}
}

func TestNotNowIsAskedAgainUntilTimeIsUp(t *testing.T) {
	busy := serve(t, func(call int) error {
		if call < 4 {
			return notNow()
		}
		return nil
	})
	c, ctx := newClient(t, busy.address)
	if _, err := c.Status(ctx, &metapb.StatusRequest{}); err != nil || busy.count() != 4 {
		t.Fatalf("%v after %d calls", err, busy.count())
	}
	never := serve(t, always(notNow()))
	c, _ = newClient(t, never.address)
	short, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	_, err := c.Status(short, &metapb.StatusRequest{})
	if code := status.Code(err); code != codes.Unavailable && code != codes.DeadlineExceeded {
		t.Errorf("%v", err)
	}
	gone, cancelNow := context.WithCancel(context.Background())
	cancelNow()
	if _, err := c.Status(gone, &metapb.StatusRequest{}); status.Code(err) != codes.Canceled {
		t.Errorf("%v, want Canceled", err)
	}
}

func TestOtherErrorsAreReturnedAtOnce(t *testing.T) {
	f := serve(t, always(status.Error(codes.FailedPrecondition, "the lease is another's")))
	c, ctx := newClient(t, f.address)
	if _, err := c.Status(ctx, &metapb.StatusRequest{}); status.Code(err) != codes.FailedPrecondition || f.count() != 1 {
		t.Errorf("%v after %d calls", err, f.count())
	}
}

// The answer to the first attempt was lost; the second finds that it was done.
func TestWhatWasDoneByALostAttemptHasWorked(t *testing.T) {
	once := func(call int) error {
		if call == 1 {
			return lost()
		}
		return nil
	}
	f := serve(t, once)
	c, ctx := newClient(t, f.address)
	if r, err := c.Create(ctx, &metapb.CreateRequest{Path: "/f", Size: 5}); err != nil || r.Size != 5 {
		t.Errorf("create: %v, %v", r, err)
	}
	if _, err := c.Create(ctx, &metapb.CreateRequest{Path: "/f", Size: 5}); status.Code(err) != codes.AlreadyExists {
		t.Errorf("create again: %v", err)
	}
	f.mu.Lock()
	f.calls = 0
	f.mu.Unlock()
	if _, err := c.Remove(ctx, &metapb.RemoveRequest{Path: "/f"}); err != nil {
		t.Errorf("remove: %v", err)
	}
	if _, err := c.Remove(ctx, &metapb.RemoveRequest{Path: "/f"}); status.Code(err) != codes.NotFound {
		t.Errorf("remove again: %v", err)
	}
	f.mu.Lock()
	f.calls, f.files["snapshot"] = 0, &metapb.FileInfo{}
	f.mu.Unlock()
	if _, err := c.DeleteSnapshot(ctx, &metapb.DeleteSnapshotRequest{Id: []byte("snapshot")}); err != nil {
		t.Errorf("delete a snapshot: %v", err)
	}
	if _, err := c.DeleteSnapshot(ctx, &metapb.DeleteSnapshotRequest{Id: []byte("snapshot")}); status.Code(err) != codes.NotFound {
		t.Errorf("delete it again: %v", err)
	}
	f.mu.Lock()
	f.calls, f.files["export"] = 0, &metapb.FileInfo{}
	f.mu.Unlock()
	if _, err := c.DeleteExport(ctx, &metapb.DeleteExportRequest{Name: "export"}); err != nil {
		t.Errorf("delete an export: %v", err)
	}
	if _, err := c.DeleteExport(ctx, &metapb.DeleteExportRequest{Name: "export"}); status.Code(err) != codes.NotFound {
		t.Errorf("delete it again: %v", err)
	}
}

func TestAnotherFileThanWasAskedForIsNoSuccess(t *testing.T) {
	f := serve(t, nil)
	c, ctx := newClient(t, f.address)
	f.say = func(call int) error {
		f.files["/f"] = &metapb.FileInfo{Path: "/f", Size: 6, Epoch: 3}
		if call == 1 {
			return lost()
		}
		return nil
	}
	if _, err := c.Create(ctx, &metapb.CreateRequest{Path: "/f", Size: 6}); status.Code(err) != codes.AlreadyExists {
		t.Errorf("%v, want AlreadyExists", err)
	}
}

func TestAStreamGoesToTheLeaderNextTime(t *testing.T) {
	leader := serve(t, always(nil))
	follower := serve(t, always(notLeading(leader.address)))
	c, ctx := newClient(t, follower.address)
	s, err := c.Attach(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.Unavailable {
		t.Fatalf("%v, want Unavailable", err)
	}
	if s, err = c.Attach(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) == codes.Unavailable || leader.count() != 1 {
		t.Errorf("%v, the leader was called %d times", err, leader.count())
	}
}

func TestAClosedClientSaysSo(t *testing.T) {
	c, ctx := newClient(t, "127.0.0.1:1")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(ctx, &metapb.StatusRequest{}); status.Code(err) != codes.Canceled {
		t.Errorf("%v", err)
	}
	if _, err := New(nil); !errors.Is(err, ErrNoServers) {
		t.Errorf("%v", err)
	}
}

// stopped is a server that takes calls and never answers, as one that was sent SIGSTOP.
func stopped(t *testing.T) *fake {
	t.Helper()
	f := serve(t, always(nil))
	f.hang = make(chan struct{})
	t.Cleanup(func() { close(f.hang) })
	return f
}

func TestACallThatHangsAtADeposedLeaderGoesToTheNewOne(t *testing.T) {
	old, leader := stopped(t), serve(t, always(nil))
	third := serve(t, always(notLeading("")))
	for _, f := range []*fake{leader, third} {
		f.tell(2, leader.address)
	}
	c, ctx := newClient(t, old.address, third.address, leader.address)
	if r, err := c.Status(ctx, &metapb.StatusRequest{}); err != nil || r.Cluster != leader.address {
		t.Fatalf("%v, %v", r, err)
	}
	if c.Leader() != leader.address {
		t.Errorf("the next call begins at %s", c.Leader())
	}
}

// A server that takes its time is not left as long as the others say that it leads.
func TestASlowLeaderIsWaitedFor(t *testing.T) {
	slow, other := stopped(t), serve(t, always(notLeading("")))
	other.tell(3, slow.address)
	c, ctx := newClient(t, slow.address, other.address)
	done := make(chan error, 1)
	go func() {
		_, err := c.Status(ctx, &metapb.StatusRequest{})
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("answered by nobody: %v", err)
	case <-time.After(2 * doubtAfter):
	}
	slow.hang <- struct{}{}
	if err := <-done; err != nil || other.count() != 0 {
		t.Errorf("%v; the other was called %d times", err, other.count())
	}
}

func TestAnAnswerOfAnEarlierTermIsNotBelieved(t *testing.T) {
	a, b := serve(t, always(nil)), serve(t, always(nil))
	a.tell(5, a.address)
	b.tell(4, b.address) // cut off since term 4
	c, ctx := newClient(t, a.address, b.address)
	if l := c.askAll(ctx, "elsewhere"); l != a.address {
		t.Errorf("%s is believed", l)
	}
	if l := c.askOne(ctx, a.address); l != "" {
		t.Errorf("%s of term 4 is believed after term 5", l)
	}
}

func TestAStreamToADeposedLeaderEnds(t *testing.T) {
	old, leader := stopped(t), serve(t, always(nil))
	leader.tell(2, leader.address)
	c, ctx := newClient(t, old.address, leader.address)
	s, err := c.Attach(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); status.Code(err) != codes.Unavailable {
		t.Fatalf("%v, want Unavailable", err)
	}
	if c.Leader() != leader.address {
		t.Errorf("the next stream goes to %s", c.Leader())
	}
}

func TestTheServersThatTheLeaderNamesAreLearned(t *testing.T) {
	leader, next := serve(t, always(nil)), serve(t, always(nil))
	leader.tell(1, leader.address, leader.address, next.address)
	learned := make(chan []string, 1)
	c, err := New([]string{leader.address}, WithLearned(func(a []string) { learned <- a }))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx := t.Context()
	if _, err := c.Status(ctx, &metapb.StatusRequest{}); err != nil {
		t.Fatal(err)
	}
	if got := <-learned; len(got) != 2 || got[1] != next.address {
		t.Fatalf("learned %v", got)
	}
	// The one that the client was given is gone; it finds the other.
	leader.mu.Lock()
	leader.say = always(lost())
	leader.mu.Unlock()
	if r, err := c.Status(ctx, &metapb.StatusRequest{}); err != nil || r.Cluster != next.address {
		t.Errorf("%v, %v", r, err)
	}
}

// A chunk server has nothing but its stream.
func TestTheServersAreLearnedByAStreamToo(t *testing.T) {
	leader, next := serve(t, always(nil)), serve(t, always(nil))
	leader.tell(1, leader.address, leader.address, next.address)
	leader.hang = make(chan struct{})
	t.Cleanup(func() { close(leader.hang) })
	learned := make(chan []string, 1)
	c, err := New([]string{leader.address}, WithLearned(func(a []string) { learned <- a }))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Attach(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := <-learned; len(got) != 2 || got[1] != next.address {
		t.Errorf("learned %v", got)
	}
}

func TestACallWhoseTimeIsUpLeavesTheServerThatDidNotAnswer(t *testing.T) {
	silent, leader := stopped(t), serve(t, always(nil))
	c, _ := newClient(t, silent.address, leader.address)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Status(short, &metapb.StatusRequest{}); err == nil {
		t.Fatal("a server that hangs has answered")
	}
	if r, err := c.Status(t.Context(), &metapb.StatusRequest{}); err != nil || r.Cluster != leader.address {
		t.Errorf("%v, %v", r, err)
	}
}
