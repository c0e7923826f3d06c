package target

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/meta/metapb"
)

// cluster is metadata servers and volumes in memory.
type cluster struct {
	metapb.MetaClient
	mu      sync.Mutex
	files   map[string]*metapb.FileInfo
	devices []*device // in the order of opening
	refuse  error     // of opening
	slow    time.Duration
	space   map[uint64]uint64 // available, by file
	mute    error             // of asking for it
	asked   [][]uint64
}

func newCluster(paths ...string) *cluster {
	c := &cluster{files: map[string]*metapb.FileInfo{}}
	for i, p := range paths {
		name, directory := strings.CutSuffix(p, "/")
		c.files[name] = &metapb.FileInfo{Path: name, Id: uint64(i + 1), Size: 1 << 20, Directory: directory}
	}
	return c
}

func (c *cluster) Status(context.Context, *metapb.StatusRequest, ...grpc.CallOption) (*metapb.StatusReply, error) {
	return &metapb.StatusReply{ClusterId: []byte("0123456789abcdef")}, nil
}

func (c *cluster) List(_ context.Context, r *metapb.ListRequest, _ ...grpc.CallOption) (*metapb.ListReply, error) {
	reply := &metapb.ListReply{}
	for _, f := range c.files {
		if r.Path == "/" && (r.Recursive || strings.Count(f.Path, "/") == 1) {
			reply.Files = append(reply.Files, f)
		}
	}
	return reply, nil
}

func (c *cluster) Lookup(_ context.Context, r *metapb.LookupRequest, _ ...grpc.CallOption) (*metapb.FileInfo, error) {
	if f := c.files[r.Path]; f != nil {
		return f, nil
	}
	return nil, status.Error(codes.NotFound, r.Path+": no such file")
}

func (c *cluster) open(ctx context.Context, path string) (block.Device, error) {
	select {
	case <-time.After(c.slow):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuse != nil {
		return nil, fmt.Errorf("open %s: %w", path, c.refuse)
	}
	if c.files[path] == nil {
		return nil, status.Error(codes.NotFound, path+": no such file")
	}
	d := &device{Memory: block.NewMemory(1 << 20)}
	c.devices = append(c.devices, d)
	return d, nil
}

// device can lose its lease, and takes a while to close.
type device struct {
	*block.Memory
	mu           sync.Mutex
	lost, closed bool
}

func (d *device) Submit(batch []*block.Request) {
	d.mu.Lock()
	lost := d.lost
	d.mu.Unlock()
	if !lost {
		d.Memory.Submit(batch)
		return
	}
	for _, r := range batch {
		r.Err = fmt.Errorf("volume: %w", block.ErrLostLease)
	}
	block.CompleteAll(batch)
}

func (d *device) Close() error {
	time.Sleep(time.Second)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	if d.lost {
		return fmt.Errorf("volume: %w", block.ErrLostLease)
	}
	return nil
}

func (d *device) isClosed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.closed
}

func (c *cluster) opened() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.devices)
}

func mustOpen(t *testing.T, v *Volumes, name string) block.Device {
	t.Helper()
	d, info, err := v.Open(t.Context(), name)
	if err != nil || info.Name != name || info.Size != 1<<20 || info.ID == [16]byte{} {
		t.Fatal(info, err)
	}
	return d
}

func TestVolumesAreTheFilesOfTheNamespace(t *testing.T) {
	c := newCluster("/b", "/dir/", "/a", "/dir/c", "/iscsi/", "/iscsi/t/1")
	v := newVolumes(c, c.open)
	all, err := v.List(t.Context())
	if got := names(all); err != nil || !slices.Equal(got, []string{"a", "b", "dir/c"}) {
		t.Fatal(got, err)
	}
	for _, info := range all {
		if one, err := v.Lookup(t.Context(), info.Name); err != nil || one != info {
			t.Error(one, err)
		}
	}
	if all[0].ID == all[1].ID {
		t.Error("two volumes have one number")
	}
	for _, name := range []string{"", ".", "..", "dir", "dir/", "dir/../a", "/a", "dir//c", "none", "iscsi/t/1"} {
		if _, err := v.Lookup(t.Context(), name); !errors.Is(err, block.ErrNotFound) {
			t.Errorf("lookup of %q: %v", name, err)
		}
	}
	if c.opened() != 0 {
		t.Error("looking at volumes opened them")
	}
}

func names(all []block.VolumeInfo) (out []string) {
	for _, v := range all {
		out = append(out, v.Name)
	}
	return out
}

func TestOverISCSIOnlyVolumesInTheRootAreServed(t *testing.T) {
	c := newCluster("/a", "/dir/", "/dir/c")
	v := topLevel{newVolumes(c, c.open)}
	if all, err := v.List(t.Context()); err != nil || !slices.Equal(names(all), []string{"a"}) {
		t.Error(all, err)
	}
	if _, _, err := v.Open(t.Context(), "dir/c"); !errors.Is(err, block.ErrNotFound) {
		t.Error(err)
	}
	d, _, err := v.Open(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
}

func TestNumberOfAVolumeNeverChanges(t *testing.T) {
	c := newCluster("/a")
	one, err := newVolumes(c, c.open).Lookup(t.Context(), "a")
	if got := fmt.Sprintf("%x", one.ID); err != nil || got != "58f76e43cd6f5d3bb8afd2f25a4abf22" {
		t.Error(got, err)
	}
}

// Another file has the name since the volume was switched to a snapshot; for initiators it is the same disk.
func TestASwitchedVolumeHasTheNumberOfItsFirstFile(t *testing.T) {
	cluster := uuid.New()
	first := newInfo(cluster, "db", &metapb.FileInfo{Id: 7, Size: 1 << 20})
	now := newInfo(cluster, "db", &metapb.FileInfo{Id: 9, Identity: 7, Size: 1 << 20})
	other := newInfo(cluster, "db2", &metapb.FileInfo{Id: 9, Identity: 9, Size: 1 << 20})
	if first != now || now.ID == other.ID {
		t.Errorf("%v, switched %v, another %v", first, now, other)
	}
}

func TestVolumeIsSharedAndClosedAfterItsLastUser(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("/a")
		v := newVolumes(c, c.open)
		first, second := mustOpen(t, v, "a"), mustOpen(t, v, "a")
		first.Close()
		first.Close() // counts once
		time.Sleep(time.Hour)
		if c.opened() != 1 || c.devices[0].isClosed() {
			t.Fatal("not one volume that is open for its second user")
		}
		second.Close()
		time.Sleep(linger - time.Millisecond)
		third := mustOpen(t, v, "a")
		time.Sleep(time.Hour)
		if c.opened() != 1 || c.devices[0].isClosed() {
			t.Fatal("a new user did not find the volume still open")
		}
		third.Close()
		time.Sleep(linger + 2*time.Second)
		if !c.devices[0].isClosed() {
			t.Fatal("volume stays open without users")
		}
		mustOpen(t, v, "a").Close()
		if c.opened() != 2 {
			t.Fatal("closed volume was not opened again")
		}
		if err := v.Close(); err != nil || !c.devices[1].isClosed() {
			t.Error(err)
		}
	})
}

func TestOpeningWaitsForTheSameVolumeToClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("/a")
		v := newVolumes(c, c.open)
		mustOpen(t, v, "a").Close()
		time.Sleep(linger + time.Millisecond) // it is closing now
		d := mustOpen(t, v, "a")
		if c.opened() != 2 || !c.devices[0].isClosed() {
			t.Error("opened twice at the same time")
		}
		d.Close()
		v.Close()
	})
}

func TestManyWaitForOneOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("/a")
		c.slow = 5 * time.Second
		v := newVolumes(c, c.open)
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() { mustOpen(t, v, "a").Close() })
		}
		wg.Go(func() {
			if _, _, err := v.Open(impatient, "a"); !errors.Is(err, ErrNotNow) {
				t.Error("impatient user:", err)
			}
		})
		wg.Wait()
		if c.opened() != 1 {
			t.Error(c.opened(), "openings")
		}
		v.Close()
	})
}

func TestVolumeThatNobodyWaitsForAnyMoreIsClosedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("/a")
		c.slow = 5 * time.Second
		v := newVolumes(c, c.open)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := v.Open(ctx, "a"); err == nil {
			t.Fatal("opened at once")
		}
		time.Sleep(time.Minute)
		if c.opened() != 1 || !c.devices[0].isClosed() {
			t.Error("lease kept for nobody")
		}
	})
}

func TestReasonForNotOpeningReachesTheUser(t *testing.T) {
	c := newCluster("/a")
	v := newVolumes(c, c.open)
	c.refuse = status.Error(codes.Unavailable, "in use by host b")
	if _, _, err := v.Open(t.Context(), "a"); !errors.Is(err, ErrNotNow) || !strings.HasSuffix(err.Error(), "in use by host b") {
		t.Error(err)
	}
	if _, _, err := v.Open(t.Context(), "none"); err == nil {
		t.Error("opened a volume that is not there")
	}
	c.refuse = nil
	if _, _, err := v.Open(t.Context(), "none"); !errors.Is(err, block.ErrNotFound) {
		t.Error(err)
	}
	mustOpen(t, v, "a").Close()
	v.Close()
}

func TestVolumeThatLostItsLeaseIsOpenedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("/a")
		v := newVolumes(c, c.open)
		old := mustOpen(t, v, "a")
		c.devices[0].mu.Lock()
		c.devices[0].lost = true
		c.devices[0].mu.Unlock()
		fresh := mustOpen(t, v, "a")
		if c.opened() != 2 || c.devices[0].isClosed() {
			t.Fatal("the dead volume was given to a new user, or taken from the old one")
		}
		old.Close()
		time.Sleep(2 * time.Second)
		if !c.devices[0].isClosed() || c.devices[1].isClosed() {
			t.Error("dead volume not closed with its last user")
		}
		c.devices[1].mu.Lock()
		c.devices[1].lost = true // removed, for instance; its users know
		c.devices[1].mu.Unlock()
		fresh.Close()
		if err := v.Close(); err != nil {
			t.Error("a lease lost earlier made the end a failure:", err)
		}
	})
}

func TestNothingIsOpenedAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("/a", "/b")
		c.slow = time.Second
		v := newVolumes(c, c.open)
		d := mustOpen(t, v, "a")
		opening := make(chan error, 1)
		go func() {
			_, _, err := v.Open(t.Context(), "b")
			opening <- err
		}()
		synctest.Wait()
		closed := make(chan error, 1)
		go func() { closed <- v.Close() }()
		if err := <-opening; err == nil {
			t.Error("opened while closing")
		}
		if len(closed) > 0 {
			t.Error("Close did not wait for a user")
		}
		d.Close()
		if err := <-closed; err != nil {
			t.Error(err)
		}
		if _, _, err := v.Open(t.Context(), "a"); !errors.Is(err, block.ErrClosed) {
			t.Error(err)
		}
		if !slices.ContainsFunc(c.devices, (*device).isClosed) {
			t.Error("not closed")
		}
	})
}

func TestUsersOfAVolumeAreToldOfItsLosses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lossy := &blocktest.Lossy{Device: block.NewMemory(1 << 20)}
		c := newCluster("/a")
		v := newVolumes(c, func(context.Context, string) (block.Device, error) { return lossy, nil })
		d := mustOpen(t, v, "a")
		told := 0
		stop := block.OnLoss(d, func() { told++ })
		lossy.Lose()
		stop()
		lossy.Lose()
		if told != 1 {
			t.Errorf("told of %d losses, want 1", told)
		}
		if err := errors.Join(d.Close(), v.Close()); err != nil {
			t.Error(err)
		}
	})
}
