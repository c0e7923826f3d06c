package target

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/blockstore/block"
	"pstorage/meta/metapb"
)

const testUUID = "00000000-0000-0000-0000-000000000007"

// OpenSnapshot: each file has one, named "s".
func (c *cluster) OpenSnapshot(_ context.Context, r *metapb.OpenSnapshotRequest, _ ...grpc.CallOption) (*metapb.OpenSnapshotReply, error) {
	if f := c.files[r.Path]; f != nil && (r.Name == "s" || r.Name == testUUID) {
		return &metapb.OpenSnapshotReply{Snapshot: &metapb.Snapshot{Id: append(make([]byte, 15), 7), File: f.Id, Layer: 1, Size: f.Size}, File: f}, nil
	}
	return nil, status.Error(codes.NotFound, "no such snapshot")
}

// frozenDevice is a device that has a snapshot's number.
type frozenDevice struct{ *device }

func (frozenDevice) ID() [16]byte { return [16]byte{15: 7} }

// changed: all of it, if the older one is another.
func (d frozenDevice) changed(_ context.Context, since snapshot, offset, length int64, _ int) ([]block.Change, error) {
	return []block.Change{{Offset: offset, Length: length, Changed: since.(frozenDevice).device != d.device}}, nil
}

func withSnapshots(c *cluster) (v *Volumes, opened *[]*device) {
	v, opened = newVolumes(c, c.open), new([]*device)
	v.openSnapshot = func(ctx context.Context, path, name string) (snapshot, error) {
		if _, err := c.OpenSnapshot(ctx, &metapb.OpenSnapshotRequest{Path: path, Name: name}); err != nil {
			return nil, err
		}
		d := &device{Memory: block.NewMemory(1 << 20)}
		*opened = append(*opened, d)
		return frozenDevice{d}, nil
	}
	return v, opened
}

func TestSnapshotsAreOpenedByTheirNames(t *testing.T) {
	c := newCluster("/a", "/dir/", "/dir/b", "/x@s", "/iscsi/", "/iscsi/t/1")
	v, _ := withSnapshots(c)
	for _, name := range []string{"a@s", "a@" + testUUID, "dir/b@s", "x@s@s", "iscsi/t/1@s"} {
		d, info, err := v.Open(t.Context(), name)
		if err != nil || !info.ReadOnly || info.Name != name || info.Size != 1<<20 || info.ID != (frozenDevice{}).ID() {
			t.Errorf("%s: %+v, %v", name, info, err)
			continue
		}
		if one, err := v.Lookup(t.Context(), name); err != nil || one != info {
			t.Errorf("lookup of %s: %+v, %v", name, one, err)
		}
		d.Close()
	}
	if _, info, err := v.Open(t.Context(), "x@s"); err != nil || info.ReadOnly {
		t.Errorf("a volume whose name has an @: %+v, %v", info, err)
	}
	for _, name := range []string{"a@", "@s", "a@t", "none@s", "dir@s@", "dir//b@s", "../a@s", "/a@s"} {
		if _, err := v.Lookup(t.Context(), name); !errors.Is(err, block.ErrNotFound) {
			t.Errorf("lookup of %q: %v", name, err)
		}
		if _, _, err := v.Open(t.Context(), name); !errors.Is(err, block.ErrNotFound) {
			t.Errorf("open of %q: %v", name, err)
		}
	}
	if all, err := v.List(t.Context()); err != nil || len(all) != 3 {
		t.Errorf("listed: %v, %v", names(all), err)
	}
}

func TestASnapshotIsSharedAndClosedAfterItsLastUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("/a")
		v, opened := withSnapshots(c)
		volume, one, two := mustOpen(t, v, "a"), mustOpen(t, v, "a@s"), mustOpen(t, v, "a@s")
		one.Close()
		time.Sleep(time.Minute)
		if len(*opened) != 1 || (*opened)[0].isClosed() {
			t.Errorf("opened %d times, or closed while in use", len(*opened))
		}
		two.Close()
		time.Sleep(time.Minute)
		if !(*opened)[0].isClosed() || c.devices[0].isClosed() {
			t.Error("the snapshot is open still, or the volume is not")
		}
		volume.Close()
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
}
