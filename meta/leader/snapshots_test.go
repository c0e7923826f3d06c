package leader_test

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/leader"
	"pstorage/meta/metapb"
	"pstorage/meta/metatest"
	"pstorage/meta/snapshots"
)

// holder is a client that has a file open and does as it is ordered, but for what a test forbids.
type holder struct {
	*metatest.Volume
	c    *metatest.Cluster
	work sync.WaitGroup
	end  context.CancelFunc

	mu      sync.Mutex
	mute    bool // it does not hold
	late    bool // it flushes when the snapshot is taken, if that may be
	orders  []*metapb.Order
	replies []*metapb.HoldReply // definite ones
	lost    int                 // answers that the lease is another's
}

// orderStream is a holder's end of a stream.
type orderStream struct {
	grpc.ServerStream
	ctx  context.Context
	send func(*metapb.Order) error
}

func (s *orderStream) Context() context.Context   { return s.ctx }
func (s *orderStream) Send(o *metapb.Order) error { return s.send(o) }
func (s *orderStream) RecvMsg(any) error          { return nil }
func (s *orderStream) SendMsg(any) error          { return nil }

// newHolder makes a file if need be, opens it and listens to orders, until the test ends.
func newHolder(t *testing.T, c *metatest.Cluster, letter byte, path string) *holder {
	t.Helper()
	if path != "/f" {
		c.Create(path, 3, 2)
	}
	return newHolderOf(t, c, letter, path)
}

// newHolderOf does so for a file that is there.
func newHolderOf(t *testing.T, c *metatest.Cluster, letter byte, path string) *holder {
	t.Helper()
	h := &holder{Volume: c.Client(letter, 1).Open(path), c: c}
	h.Settle()
	var ctx context.Context
	ctx, h.end = context.WithCancel(context.Background())
	h.work.Go(func() { h.listen(ctx) })
	h.work.Go(func() {
		for ; ctx.Err() == nil; time.Sleep(leader.RenewEvery) {
			if c.Leader() != nil {
				_, _ = h.Renew()
			}
		}
	})
	t.Cleanup(h.stop)
	return h
}

func (h *holder) stop() {
	h.end()
	h.work.Wait()
}

// listen opens one stream after the other.
func (h *holder) listen(ctx context.Context) {
	for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		if l := h.c.Leader(); l != nil {
			_ = l.Orders(&metapb.OrdersRequest{Client: h.ID}, &orderStream{ctx: ctx, send: func(o *metapb.Order) error {
				h.ordered(ctx, o)
				return nil
			}})
		}
	}
}

func (h *holder) ordered(ctx context.Context, o *metapb.Order) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.orders = append(h.orders, o)
	if !h.mute && !o.Flatten {
		h.work.Go(func() { h.hold(ctx, o.Request, h.late && o.Late) })
	}
}

// hold asks until there is a definite answer.
func (h *holder) hold(ctx context.Context, request []byte, late bool) {
	for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		l := h.c.Leader()
		if l == nil {
			continue
		}
		r, err := l.Hold(ctx, &metapb.HoldRequest{Client: h.ID, Request: request, File: h.File, Epoch: h.Epoch, Late: late})
		h.mu.Lock()
		switch status.Code(err) {
		case codes.OK:
			h.replies = append(h.replies, r)
		case codes.FailedPrecondition:
			h.lost++
		}
		h.mu.Unlock()
		if code := status.Code(err); code == codes.OK || code == codes.FailedPrecondition {
			return
		}
	}
}

func (h *holder) silence(mute bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.mute = mute
}

// answered are the definite answers so far.
func (h *holder) answered() []*metapb.HoldReply {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.replies)
}

func (h *holder) ordersSoFar() []*metapb.Order {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.orders)
}

// wantAnswer wants just one definite answer, within a while.
func (h *holder) wantAnswer(t *testing.T, taken bool, layers ...uint32) {
	t.Helper()
	h.c.Within(10*time.Second, "an answer to Hold", func() bool { return len(h.answered()) > 0 })
	if all := h.answered(); len(all) != 1 || all[0].Taken != taken || !slices.Equal(all[0].Layers, layers) {
		t.Errorf("answers %v, want taken %v, layers %v", all, taken, layers)
	}
}

// asked is a request of a snapshot under way.
type asked struct {
	reply *metapb.SnapshotReply
	err   error
	done  chan struct{}
}

func wish(n byte, paths ...string) *metapb.SnapshotRequest {
	in := &metapb.SnapshotRequest{Paths: paths, Name: "s" + string('0'+rune(n))}
	for i := range paths {
		in.Ids = append(in.Ids, append(bytes.Repeat([]byte{n}, fsm.SnapshotIDSize-1), byte(i+1)))
	}
	return in
}

func ask(c *metatest.Cluster, in *metapb.SnapshotRequest) *asked {
	a, l := &asked{done: make(chan struct{})}, c.Leader()
	go func() {
		defer close(a.done)
		a.reply, a.err = l.Snapshot(context.Background(), in)
	}()
	synctest.Wait()
	return a
}

func (a *asked) wants(t *testing.T, code codes.Code) {
	t.Helper()
	<-a.done
	wantCode(t, a.err, code)
}

func snapshotsOf(t *testing.T, c *metatest.Cluster, path string) []*metapb.Snapshot {
	t.Helper()
	r, err := c.Leader().ListSnapshots(context.Background(), &metapb.ListSnapshotsRequest{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return r.Snapshots
}

// R11: every holder holds before the entry commits, and goes on in the new layer when it is told so.
func TestSnapshotsAreTakenWhenAllHold(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		a, b := newHolder(t, c, 'a', "/f"), newHolder(t, c, 'b', "/g")
		b.silence(true)
		req := ask(c, wish(1, "/f", "/g"))
		if o := a.ordersSoFar(); len(o) != 1 || !slices.Equal(o[0].Files, []uint64{a.File}) {
			t.Fatalf("orders %v", o)
		}
		c.Never(time.Second, "one of two holds, and the snapshot is taken", func() bool { return len(snapshotsOf(t, c, "/f"))+len(a.answered()) > 0 })
		b.silence(false)
		b.hold(context.Background(), b.ordersSoFar()[0].Request, false)
		req.wants(t, codes.OK)
		a.wantAnswer(t, true, 1, 2)
		b.wantAnswer(t, true, 1, 2)
		for i, s := range req.reply.Snapshots {
			if want := []string{"/f", "/g"}[i]; s.Path != want || s.Layer != 1 || !s.Current || s.Size != 1<<30 || s.Name != "s1" {
				t.Errorf("%v", s)
			}
		}
		again := ask(c, wish(1, "/f", "/g"))
		again.wants(t, codes.OK)
		if len(again.reply.Snapshots) != 2 || !bytes.Equal(again.reply.Snapshots[1].Id, req.reply.Snapshots[1].Id) || len(a.ordersSoFar()) != 1 {
			t.Errorf("asked again: %v, orders %v", again.reply, a.ordersSoFar())
		}
		a.stop()
		b.stop()
	})
}

func TestARequestThatAHolderDoesNotHoldForIsGivenUp(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		a, b := newHolder(t, c, 'a', "/f"), newHolder(t, c, 'b', "/g")
		b.silence(true)
		began := time.Now()
		req := ask(c, wish(1, "/f", "/g"))
		req.wants(t, codes.Aborted)
		if took := time.Since(began); took != snapshots.HoldTime || !strings.HasSuffix(req.err.Error(), "has open: /g") {
			t.Errorf("after %v: %v", took, req.err)
		}
		a.wantAnswer(t, false, 1)
		b.hold(context.Background(), b.ordersSoFar()[0].Request, false) // it comes late
		b.wantAnswer(t, false, 1)
		b.silence(false)
		ask(c, wish(1, "/f", "/g")).wants(t, codes.OK)
		if all := snapshotsOf(t, c, "/g"); len(all) != 1 {
			t.Errorf("%v", all)
		}
		a.stop()
		b.stop()
	})
}

// flushed says of all below a layer that it is flushed.
func (h *holder) flushed(layer uint32) error {
	_, err := h.c.Leader().SnapshotFlushed(context.Background(), &metapb.SnapshotFlushedRequest{Client: h.ID, File: h.File, Epoch: h.Epoch, Layer: layer})
	return err
}

// R11flush: holders go on at once, and the snapshots are shown when all have flushed.
func TestSnapshotsAreShownWhenAllAreFlushed(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		a, b := newHolder(t, c, 'a', "/f"), newHolder(t, c, 'b', "/g")
		a.late, b.late = true, true
		time.Sleep(time.Second)
		req := ask(c, wish(1, "/f", "/g"))
		a.wantAnswer(t, true, 1, 2)
		b.wantAnswer(t, true, 1, 2)
		await(t, a.flushed(2))
		c.Never(time.Second, "it is shown, or the request answered, before all are flushed", func() bool {
			return len(snapshotsOf(t, c, "/g")) > 0 || req.isDone()
		})
		req.wants(t, codes.Aborted) // asked for again, it goes on
		req = ask(c, wish(1, "/f", "/g"))
		await(t, b.flushed(2))
		req.wants(t, codes.OK)
		if n := len(snapshotsOf(t, c, "/f")) + len(snapshotsOf(t, c, "/g")); n != 2 {
			t.Errorf("%d snapshots", n)
		}
		a.stop()
		b.stop()
	})
}

// Of snapshots taken together all are given up if one is.
func TestSnapshotsAreGivenUpTogether(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		a, b := newHolder(t, c, 'a', "/f"), newHolder(t, c, 'b', "/g")
		a.late, b.late = true, true
		time.Sleep(time.Second)
		req := ask(c, wish(1, "/f", "/g"))
		a.wantAnswer(t, true, 1, 2)
		await(t, a.flushed(2))
		b.wantAnswer(t, true, 1, 2)
		b.stop()
		_, err := c.Leader().CloseFile(context.Background(), &metapb.CloseFileRequest{Client: b.ID, File: b.File, Epoch: b.Epoch})
		await(t, err)
		req.wants(t, codes.FailedPrecondition)
		if n := len(snapshotsOf(t, c, "/f")) + len(snapshotsOf(t, c, "/g")); n != 0 {
			t.Errorf("%d snapshots", n)
		}
		wantCode(t, b.flushed(2), codes.FailedPrecondition)
		a.stop()
	})
}

func (a *asked) isDone() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}

func await(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What a holder says of an earlier request says nothing of whether it holds now.
func TestAHoldCountsForItsOwnRequestOnly(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		a := newHolder(t, c, 'a', "/f")
		a.silence(true)
		ask(c, wish(1, "/f")).wants(t, codes.Aborted)
		old := a.ordersSoFar()[0].Request
		req := ask(c, wish(1, "/f"))
		a.hold(context.Background(), old, false)
		a.wantAnswer(t, false, 1)
		for _, in := range []*metapb.HoldRequest{
			{Client: a.ID, Request: a.ordersSoFar()[1].Request, File: a.File, Epoch: a.Epoch + 1},
			{Client: c.Client('b', 1).ID, Request: a.ordersSoFar()[1].Request, File: a.File, Epoch: a.Epoch},
		} {
			_, err := c.Leader().Hold(context.Background(), in)
			wantCode(t, err, codes.FailedPrecondition)
		}
		req.wants(t, codes.Aborted)
		if all := snapshotsOf(t, c, "/f"); len(all) != 0 {
			t.Errorf("%v", all)
		}
		a.stop()
	})
}

func TestFilesThatNobodyHoldsAreNamed(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		a := newHolder(t, c, 'a', "/f")
		c.Create("/never", 3, 2)
		c.Create("/expired", 3, 2)
		c.Client('b', 1).Open("/expired")
		time.Sleep(leader.LeaseTime)
		c.Create("/fresh", 3, 2)
		c.Client('b', 1).Open("/fresh") // not settled
		req := ask(c, wish(1, "/f", "/never", "/expired", "/fresh"))
		req.wants(t, codes.FailedPrecondition)
		d := status.Convert(req.err).Details()
		if len(d) != 1 || !slices.Equal(d[0].(*metapb.NoHolder).Paths, []string{"/never", "/expired"}) {
			t.Errorf("%v, details %v", req.err, d)
		}
		ask(c, wish(1, "/f", "/fresh")).wants(t, codes.Unavailable) // soon
		ask(c, wish(1, "/f", "/nowhere")).wants(t, codes.NotFound)
		ask(c, wish(1, "/f", "/")).wants(t, codes.InvalidArgument)
		ask(c, wish(1)).wants(t, codes.InvalidArgument)
		ask(c, &metapb.SnapshotRequest{Paths: []string{"/f"}}).wants(t, codes.InvalidArgument)
		if o := a.ordersSoFar(); len(o) != 0 {
			t.Errorf("a holder was disturbed for nothing: %v", o)
		}
		a.stop()
	})
}

// A holder that opens its stream late, or again, is told what is under way.
func TestOrdersAreSentAgainToAStreamThatComesLater(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		v := c.Client('a', 1).Open("/f")
		v.Settle()
		req := ask(c, wish(1, "/f"))
		got := make(chan *metapb.Order, 8)
		listen := func() (end func()) {
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error)
			go func() {
				ended <- c.Leader().Orders(&metapb.OrdersRequest{Client: v.ID}, &orderStream{ctx: ctx, send: func(o *metapb.Order) error { got <- o; return nil }})
			}()
			synctest.Wait()
			return func() { cancel(); <-ended }
		}
		end := listen()
		end()
		end = listen()
		first, second := <-got, <-got
		if !bytes.Equal(first.Request, second.Request) || !slices.Equal(second.Files, []uint64{v.File}) {
			t.Errorf("%v, then %v", first, second)
		}
		_, err := c.Leader().Hold(context.Background(), &metapb.HoldRequest{Client: v.ID, Request: second.Request, File: v.File, Epoch: v.Epoch})
		wantCode(t, err, codes.OK)
		req.wants(t, codes.OK)
		end()
	})
}

func TestAClientHasFewStreamsOfOrders(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan int, 8)
		for i := range 6 {
			go func() {
				_ = c.Leader().Orders(&metapb.OrdersRequest{Client: c.Client('a', 1).ID}, &orderStream{ctx: ctx})
				ended <- i
			}()
			synctest.Wait()
		}
		if len(ended) != 2 || <-ended != 0 || <-ended != 1 {
			t.Errorf("%d more streams have ended, not the two oldest alone", len(ended))
		}
		cancel()
		synctest.Wait()
		if len(ended) != 4 {
			t.Errorf("%d streams are left", 4-len(ended))
		}
	})
}

func TestAFileIsInOneRequestAtATime(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		a := newHolder(t, c, 'a', "/f")
		a.silence(true)
		first := ask(c, wish(1, "/f"))
		ask(c, wish(2, "/f")).wants(t, codes.Unavailable)
		joined := ask(c, wish(1, "/f"))
		a.hold(context.Background(), a.ordersSoFar()[0].Request, false)
		first.wants(t, codes.OK)
		joined.wants(t, codes.OK)
		if all := snapshotsOf(t, c, "/f"); len(all) != 1 || len(a.ordersSoFar()) != 1 {
			t.Errorf("%v, orders %v", all, a.ordersSoFar())
		}
		a.stop()
	})
}

func TestALeaseThatEndsMeanwhileEndsTheRequest(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		a, b := newHolder(t, c, 'a', "/f"), newHolder(t, c, 'b', "/g")
		b.silence(true)
		req := ask(c, wish(1, "/f", "/g"))
		c.Client('a', 2).Open("/f") // its process was restarted
		b.hold(context.Background(), b.ordersSoFar()[0].Request, false)
		req.wants(t, codes.Unavailable) // it may be tried again at once
		b.wantAnswer(t, false, 1)
		c.Within(time.Second, "the former holder hears that it holds no more", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.lost == 1 })
		if all := append(snapshotsOf(t, c, "/f"), snapshotsOf(t, c, "/g")...); len(all)+len(a.answered()) != 0 {
			t.Errorf("%v, answers %v", all, a.answered())
		}
		a.stop()
		b.stop()
	})
}

func TestANewLeaderAnswersHoldsOfRequestsThatItDoesNotKnow(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		a, b := newHolder(t, c, 'a', "/f"), newHolder(t, c, 'b', "/g")
		b.silence(true)
		req := ask(c, wish(1, "/f", "/g"))
		c.Lead()
		req.wants(t, codes.Unavailable)
		a.wantAnswer(t, false, 1)
		b.silence(false)
		ask(c, wish(1, "/f", "/g")).wants(t, codes.OK)
		a.stop()
		b.stop()
	})
}

// The entry was proposed, and nobody knows what has become of it: an answer waits for a barrier.
func TestACommitInDoubtIsAnsweredFromWhatBecameOfIt(t *testing.T) {
	takes := func(cmd *fsmpb.Command) bool { return cmd.GetTakeSnapshots() != nil }
	for name, then := range map[string]struct {
		happens func(c *metatest.Cluster)
		taken   bool
	}{
		"the same leader leads on":             {func(*metatest.Cluster) {}, true},
		"the next leader has the entry":        {func(c *metatest.Cluster) { c.Lead() }, true},
		"the next leader has it not":           {func(c *metatest.Cluster) { c.Forget(); c.Lead() }, false},
		"it is put into the next leader's log": {func(c *metatest.Cluster) { c.Delay(); c.Lead() }, false},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
				a := newHolder(t, c, 'a', "/f")
				lost := make(chan struct{}, 8)
				a.silence(true)
				c.Lose = func(cmd *fsmpb.Command) bool {
					if takes(cmd) {
						lost <- struct{}{}
						return true
					}
					return false
				}
				req := ask(c, wish(1, "/f"))
				l := c.Leader()
				in := &metapb.HoldRequest{Client: a.ID, Request: a.ordersSoFar()[0].Request, File: a.File, Epoch: a.Epoch}
				dead, cancel := context.WithCancel(context.Background())
				cancel()
				_, _ = l.Hold(dead, in) // its answer never comes
				<-lost
				req.wants(t, codes.Unavailable)
				c.Lose = nil
				then.happens(c)
				a.hold(context.Background(), in.Request, false)
				layers := []uint32{1, 2}[:1]
				if then.taken {
					layers = []uint32{1, 2}
				}
				a.wantAnswer(t, then.taken, layers...)
				a.silence(false)
				ask(c, wish(1, "/f")).wants(t, codes.OK)
				if all := snapshotsOf(t, c, "/f"); len(all) != 1 {
					t.Errorf("%v", all)
				}
				a.stop()
			})
		})
	}
}

func TestADeposedLeaderAnswersNoHold(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		v := c.Client('a', 1).Open("/f")
		old := c.Leader()
		c.Lead()
		_, err := old.Hold(context.Background(), &metapb.HoldRequest{Client: v.ID, Request: []byte("x"), File: v.File, Epoch: v.Epoch})
		wantCode(t, err, codes.Unavailable)
		_, err = old.Snapshot(context.Background(), wish(1, "/f"))
		wantCode(t, err, codes.Unavailable)
		err = old.Orders(&metapb.OrdersRequest{Client: v.ID}, &orderStream{ctx: context.Background()})
		wantCode(t, err, codes.Unavailable)
	})
}

func TestSnapshotsAreListedOpenedProtectedAndDeleted(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		a, b := newHolder(t, c, 'a', "/f"), newHolder(t, c, 'b', "/g")
		first, second := ask(c, wish(1, "/f", "/g")), (*asked)(nil)
		first.wants(t, codes.OK)
		second = ask(c, wish(2, "/f"))
		second.wants(t, codes.OK)
		ctx, l := context.Background(), c.Leader()
		all, err := l.ListSnapshots(ctx, &metapb.ListSnapshotsRequest{All: true})
		if err != nil || len(all.Snapshots) != 3 || all.Snapshots[0].Current || !all.Snapshots[1].Current || all.Snapshots[2].Path != "/g" {
			t.Fatalf("%v, %v", all, err)
		}
		id := second.reply.Snapshots[0].Id
		one, err := l.ListSnapshots(ctx, &metapb.ListSnapshotsRequest{Id: id})
		if err != nil || len(one.Snapshots) != 1 || !bytes.Equal(one.Snapshots[0].Parent, first.reply.Snapshots[0].Id) {
			t.Errorf("%v, %v", one, err)
		}
		opened, err := l.OpenSnapshot(ctx, &metapb.OpenSnapshotRequest{Path: "/f", Name: "s1"})
		if err != nil || opened.Snapshot.Layer != 1 || opened.File.Id != a.File || !slices.Equal(opened.File.Layers, []uint32{1, 2, 3}) {
			t.Errorf("%v, %v", opened, err)
		}
		protect := func(on bool) {
			r, err := l.ProtectSnapshot(ctx, &metapb.ProtectSnapshotRequest{Id: id, Protected: on})
			if err != nil || r.Snapshot.Protected != on {
				t.Errorf("%v, %v", r, err)
			}
		}
		protect(true)
		_, err = l.DeleteSnapshot(ctx, &metapb.DeleteSnapshotRequest{Id: id})
		wantCode(t, err, codes.FailedPrecondition)
		_, err = l.Remove(ctx, &metapb.RemoveRequest{Path: "/f"})
		wantCode(t, err, codes.FailedPrecondition)
		protect(false)
		_, err = l.DeleteSnapshot(ctx, &metapb.DeleteSnapshotRequest{Id: id})
		wantCode(t, err, codes.OK)
		_, err = l.OpenSnapshot(ctx, &metapb.OpenSnapshotRequest{Id: id})
		wantCode(t, err, codes.NotFound)
		if all := snapshotsOf(t, c, "/f"); len(all) != 1 || !all[0].Current {
			t.Errorf("%v", all)
		}
		a.stop()
		b.stop()
	})
}
