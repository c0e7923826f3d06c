package leader_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"

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
