package leader_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/metapb"
	"pstorage/meta/metatest"
)

// taken takes snapshot n of a file that somebody holds, called s and the number.
func taken(t *testing.T, c *metatest.Cluster, n byte, path string) *metapb.Snapshot {
	t.Helper()
	req := ask(c, wish(n, path))
	req.wants(t, codes.OK)
	return req.reply.Snapshots[0]
}

func uuidOf(s *metapb.Snapshot) string {
	id, _ := uuid.FromBytes(s.Id)
	return id.String()
}

func TestACloneIsMadeWithoutItsParentsHolder(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		ctx, a := context.Background(), newHolder(t, c, 'a', "/f")
		s := taken(t, c, 1, "/f")
		a.silence(true)
		before := len(a.ordersSoFar())
		for i, in := range []*metapb.CloneRequest{
			{Path: "/f", Snapshot: "s1", NewPath: "/one"},
			{Path: "/f", Snapshot: uuidOf(s), NewPath: "/two"},
			{Snapshot: uuidOf(s), NewPath: "/three", Attributes: &metapb.Attributes{ReplicasNorm: 2, ReplicasMin: 1}},
		} {
			f, err := c.Leader().Clone(ctx, in)
			wantCode(t, err, codes.OK)
			if o := f.GetOver(); o.GetPath() != "/f" || o.Name != "s1" || o.File != a.File || o.Layer != 1 || o.Size != 1<<30 || !slices.Equal(o.Snapshot, s.Id) || f.Size != 1<<30 {
				t.Errorf("clone %d: %v", i, f)
			}
		}
		for _, in := range []*metapb.CloneRequest{{Path: "/f", Snapshot: "s2", NewPath: "/x"}, {Path: "/g", Snapshot: "s1", NewPath: "/x"}, {Snapshot: "s1", NewPath: "/x"}} {
			if _, err := c.Leader().Clone(ctx, in); err == nil {
				t.Errorf("%v: made", in)
			}
		}
		all := snapshotsOf(t, c, "/f")
		if !slices.Equal(all[0].Clones, []string{"/one", "/three", "/two"}) || !all[0].Current {
			t.Errorf("%v", all)
		}
		_, err := c.Leader().DeleteSnapshot(ctx, &metapb.DeleteSnapshotRequest{Id: s.Id})
		if wantCode(t, err, codes.FailedPrecondition); !strings.Contains(err.Error(), "/one, /three, /two") {
			t.Error(err)
		}
		_, err = c.Leader().Remove(ctx, &metapb.RemoveRequest{Path: "/f", Force: true})
		wantCode(t, err, codes.FailedPrecondition)
		if len(a.ordersSoFar()) != before {
			t.Error("the parent's holder was asked for something")
		}
		a.stop()
	})
}

// A client of an earlier version would read zeros where a clone has nothing.
func TestClientsThatKnowNoClonesAreRefusedThem(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		ctx, a := context.Background(), newHolder(t, c, 'a', "/f")
		taken(t, c, 1, "/f")
		_, err := c.Leader().Clone(ctx, &metapb.CloneRequest{Path: "/f", Snapshot: "s1", NewPath: "/c"})
		wantCode(t, err, codes.OK)
		old := c.Client('b', 1)
		_, err = c.Leader().Open(ctx, &metapb.OpenRequest{Client: old.ID, Path: "/c"})
		wantCode(t, err, codes.FailedPrecondition)
		b := newHolderOf(t, c, 'b', "/c")
		taken(t, c, 2, "/c")
		_, err = c.Leader().OpenSnapshot(ctx, &metapb.OpenSnapshotRequest{Path: "/c", Name: "s2"})
		wantCode(t, err, codes.FailedPrecondition)
		_, err = c.Leader().OpenSnapshot(ctx, &metapb.OpenSnapshotRequest{Path: "/f", Name: "s1"})
		wantCode(t, err, codes.OK)
		a.stop()
		b.stop()
	})
}

func TestACloneReadsFromItsSnapshot(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		ctx, a := context.Background(), newHolder(t, c, 'a', "/f")
		s := taken(t, c, 1, "/f")
		made, err := c.Leader().Clone(ctx, &metapb.CloneRequest{Path: "/f", Snapshot: "s1", NewPath: "/c"})
		wantCode(t, err, codes.OK)
		b := newHolderOf(t, c, 'b', "/c")
		found, err := c.Leader().Lookup(ctx, &metapb.LookupRequest{Path: "/c"})
		if wantCode(t, err, codes.OK); found.Over.GetLayer() != 1 {
			t.Errorf("%v", found)
		}
		renewed, err := c.Leader().Renew(ctx, &metapb.RenewRequest{Client: b.ID, Held: []*metapb.Held{{File: b.File, Epoch: b.Epoch}}})
		if wantCode(t, err, codes.OK); len(renewed.Changed) != 1 || renewed.Changed[0].Over.GetFile() != a.File {
			t.Errorf("%v", renewed)
		}
		opened, err := c.Leader().OpenSnapshot(ctx, &metapb.OpenSnapshotRequest{Id: s.Id, Child: made.Id, Over: true})
		if wantCode(t, err, codes.OK); opened.File.Id != a.File || opened.Snapshot.Layer != 1 {
			t.Errorf("%v", opened)
		}
		for _, child := range []uint64{a.File, 999} {
			_, err = c.Leader().OpenSnapshot(ctx, &metapb.OpenSnapshotRequest{Id: s.Id, Child: child, Over: true})
			wantCode(t, err, codes.NotFound)
		}
		a.stop()
		b.stop()
	})
}

// cloned makes a clone of /f, which a holder has open.
func cloned(t *testing.T, c *metatest.Cluster, path string) (parent *holder, clone *metapb.FileInfo) {
	t.Helper()
	parent = newHolder(t, c, 'a', "/f")
	taken(t, c, 1, "/f")
	clone, err := c.Leader().Clone(context.Background(), &metapb.CloneRequest{Path: "/f", Snapshot: "s1", NewPath: path})
	wantCode(t, err, codes.OK)
	return parent, clone
}

func flatten(t *testing.T, c *metatest.Cluster, in *metapb.FlattenRequest, code codes.Code) *metapb.FileInfo {
	t.Helper()
	f, err := c.Leader().Flatten(context.Background(), in)
	wantCode(t, err, code)
	synctest.Wait()
	return f
}

func (h *holder) wantOrder(t *testing.T, n int, cancel bool) {
	t.Helper()
	all := h.ordersSoFar()
	if len(all) != n {
		t.Fatalf("%d orders, want %d: %v", len(all), n, all)
	}
	if o := all[n-1]; !o.Flatten || o.Cancel != cancel || !slices.Equal(o.Files, []uint64{h.File}) || len(o.Request) != 0 {
		t.Errorf("order %v, want cancel %v", o, cancel)
	}
}

func TestAHolderIsToldToFlattenAndNotTo(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		a, clone := cloned(t, c, "/c")
		before := len(a.ordersSoFar())
		b := newHolderOf(t, c, 'b', "/c")
		synctest.Wait()
		for range 2 { // the second has nothing to say
			if f := flatten(t, c, &metapb.FlattenRequest{Path: "/c"}, codes.OK); !f.Flattening || f.Id != clone.Id {
				t.Errorf("%v", f)
			}
			b.wantOrder(t, 1, false)
		}
		_, err := c.Leader().Snapshot(context.Background(), wish(2, "/c"))
		wantCode(t, err, codes.FailedPrecondition)
		flatten(t, c, &metapb.FlattenRequest{Path: "/c", Cancel: true}, codes.OK)
		b.wantOrder(t, 2, true)
		flatten(t, c, &metapb.FlattenRequest{Path: "/c"}, codes.OK)
		b.wantOrder(t, 3, false)
		c.Lead() // who knows it from the state
		c.Within(time.Second, "the next leader's order", func() bool { return len(b.ordersSoFar()) == 4 })
		b.wantOrder(t, 4, false)
		done := &metapb.FlattenedRequest{Client: b.ID, File: b.File, Epoch: b.Epoch}
		for range 2 {
			_, err := c.Leader().Flattened(context.Background(), done)
			wantCode(t, err, codes.OK)
		}
		if f := flatten(t, c, &metapb.FlattenRequest{Path: "/c"}, codes.OK); f.Over != nil || f.Flattening {
			t.Errorf("%v", f)
		}
		if len(a.ordersSoFar()) != before {
			t.Errorf("orders to another: %v", a.ordersSoFar())
		}
		_, err = c.Leader().DeleteSnapshot(context.Background(), &metapb.DeleteSnapshotRequest{Id: clone.Over.Snapshot})
		wantCode(t, err, codes.OK)
		a.stop()
		b.stop()
	})
}

func TestAFileThatNobodyHasOpenIsNotFlattened(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		ctx := context.Background()
		a, _ := cloned(t, c, "/c")
		_, err := c.Leader().Flatten(ctx, &metapb.FlattenRequest{Path: "/c"})
		wantCode(t, err, codes.FailedPrecondition)
		if d := status.Convert(err).Details(); len(d) != 1 || !slices.Equal(d[0].(*metapb.NoHolder).Paths, []string{"/c"}) {
			t.Errorf("%v, details %v", err, d)
		}
		f, err := c.Leader().Lookup(ctx, &metapb.LookupRequest{Path: "/c"})
		if wantCode(t, err, codes.OK); f.Flattening {
			t.Error("it was refused, and is to be flattened")
		}
		flatten(t, c, &metapb.FlattenRequest{Path: "/c", Cancel: true}, codes.OK)
		flatten(t, c, &metapb.FlattenRequest{Path: "/none"}, codes.NotFound)
		flatten(t, c, &metapb.FlattenRequest{Path: "/"}, codes.NotFound)
		if f := flatten(t, c, &metapb.FlattenRequest{Path: "/f"}, codes.OK); f.Over != nil {
			t.Errorf("%v", f)
		}
		v := c.Client('b', 1).Open("/c")
		flatten(t, c, &metapb.FlattenRequest{Path: "/c"}, codes.OK)
		_, err = c.Leader().Flattened(ctx, &metapb.FlattenedRequest{Client: v.ID, File: v.File, Epoch: v.Epoch})
		wantCode(t, err, codes.Unavailable) // not settled
		v.Settle()
		for _, in := range []*metapb.FlattenedRequest{{}, {Client: a.ID, File: v.File, Epoch: v.Epoch}, {Client: v.ID, File: v.File, Epoch: v.Epoch + 1}} {
			if _, err := c.Leader().Flattened(ctx, in); err == nil {
				t.Errorf("%v is taken", in)
			}
		}
		a.stop()
	})
}
