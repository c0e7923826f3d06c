package target

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/blockstore/block"
	"pstorage/meta/metapb"
)

// history is a cluster with a volume "/a" that has snapshots in two files.
type history struct {
	*cluster
	snapshots []*metapb.Snapshot
}

func newHistory() *history {
	h := &history{cluster: newCluster("/a")}
	add := func(name string, file uint64, layer uint32, deleting bool) {
		id := append(make([]byte, 15), byte(len(h.snapshots)+1))
		h.snapshots = append(h.snapshots, &metapb.Snapshot{Id: id, Path: "/a", File: file, Layer: layer, Name: name, Size: 1 << 20, Deleting: deleting})
	}
	add("one", 1, 1, false)
	add("of a former", 9, 1, false)
	add("", 1, 2, false)
	add("deleted", 1, 3, true)
	add("two", 1, 5, false)
	add("three", 1, 6, false)
	return h
}

func (h *history) OpenSnapshot(_ context.Context, r *metapb.OpenSnapshotRequest, _ ...grpc.CallOption) (*metapb.OpenSnapshotReply, error) {
	for _, s := range h.snapshots {
		if r.Path == s.Path && r.Name == s.Name && !s.Deleting {
			return &metapb.OpenSnapshotReply{Snapshot: s, File: h.files["/a"]}, nil
		}
	}
	return nil, status.Error(codes.NotFound, "no such snapshot")
}

func (h *history) ListSnapshots(context.Context, *metapb.ListSnapshotsRequest, ...grpc.CallOption) (*metapb.ListSnapshotsReply, error) {
	return &metapb.ListSnapshotsReply{Snapshots: h.snapshots}, nil
}

func TestOlderSnapshotsAreThoseOfTheSameFile(t *testing.T) {
	h := newHistory()
	v := newVolumes(h, h.open)
	for name, want := range map[string][]string{
		"a@three": {"two", "00000000-0000-0000-0000-000000000003", "one"}, "a@two": {"00000000-0000-0000-0000-000000000003", "one"}, "a@one": nil,
		"a@of a former": nil, "a": nil, "none": nil,
	} {
		if got, err := v.Older(t.Context(), name); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
	if _, err := v.Older(t.Context(), "a@none"); !errors.Is(err, block.ErrNotFound) {
		t.Errorf("of a snapshot that is none: %v", err)
	}
}

func TestBothSnapshotsAreInUseWhileTheyAreCompared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHistory()
		v := newVolumes(h, h.open)
		var opened []*device
		v.openSnapshot = func(_ context.Context, _, name string) (snapshot, error) {
			if name == "gone" {
				return nil, block.ErrNotFound
			}
			d := &device{Memory: block.NewMemory(1 << 20)}
			opened = append(opened, d)
			return frozenDevice{d}, nil
		}
		c, err := v.Since(t.Context(), "a@two", "one")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.Changed(t.Context(), 0, 4096, 9); err != nil || !slices.Equal(got, []block.Change{{Length: 4096, Changed: true}}) {
			t.Errorf("changed: %v, %v", got, err)
		}
		time.Sleep(time.Minute)
		if len(opened) != 2 || opened[0].isClosed() || opened[1].isClosed() {
			t.Fatalf("%d opened, or closed while in use", len(opened))
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		for _, bad := range [][2]string{{"a@two", "gone"}, {"a", "one"}} {
			if _, err := v.Since(t.Context(), bad[0], bad[1]); !errors.Is(err, block.ErrNotFound) {
				t.Errorf("%q: %v", bad, err)
			}
		}
		time.Sleep(time.Minute)
		for i, d := range opened {
			if !d.isClosed() {
				t.Errorf("snapshot %d of %d is open still", i, len(opened))
			}
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
}
