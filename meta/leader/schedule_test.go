package leader_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/metatest"
)

func schedule(t *testing.T, c *metatest.Cluster, path string, hourly, daily uint32) {
	t.Helper()
	if _, err := c.Leader().SetSchedule(context.Background(), &metapb.SetScheduleRequest{Path: path, Schedule: &metapb.Schedule{Hourly: hourly, Daily: daily}}); err != nil {
		t.Fatal(err)
	}
}

// takesOver stands for recovery's client, which fences, settles and closes a file; it counts how often.
func takesOver(c *metatest.Cluster, times *atomic.Int32, after func(file *metapb.FileInfo)) {
	c.TakeOver = func(ctx context.Context, meta metapb.MetaClient, as *metapb.Client, file *metapb.FileInfo) error {
		times.Add(1)
		r, err := meta.Open(ctx, &metapb.OpenRequest{Client: as, Path: file.Path})
		if err != nil {
			return err
		}
		_, err = meta.Settled(ctx, &metapb.SettledRequest{Client: as, File: r.File.Id, Epoch: r.Epoch})
		_, closeErr := meta.CloseFile(ctx, &metapb.CloseFileRequest{Client: as, File: r.File.Id, Epoch: r.Epoch, Clean: true})
		after(r.File)
		return errors.Join(err, closeErr)
	}
}

func shots(t *testing.T, c *metatest.Cluster, path string) int { return len(snapshotsOf(t, c, path)) }

func TestSnapshotsAreTakenAndDeletedBySchedule(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		h := newHolder(t, c, 'a', "/f")
		time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)))
		ask(c, wish(1, "/f")).wants(t, codes.OK)
		schedule(t, c, "/f", 2, 1)
		for hour, want := range []int{2, 3, 4, 4} { // that of the day and the one by request among them
			c.Within(time.Minute, "the hour's snapshot", func() bool {
				all := snapshotsOf(t, c, "/f")
				last := all[len(all)-1]
				return last.Scheduled != 0 && time.Since(time.Unix(last.CreatedUnix, 0)) < time.Hour
			})
			time.Sleep(time.Minute)
			if n := shots(t, c, "/f"); n != want {
				t.Errorf("hour %d: %d snapshots, want %d", hour, n, want)
			}
			if hour == 1 {
				c.Lead() // the next leader goes on where this one was
			}
			if hour == 3 {
				schedule(t, c, "/f", 0, 0)
			}
			time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)))
		}
		time.Sleep(time.Minute)
		if n := shots(t, c, "/f"); n != 4 {
			t.Errorf("without a schedule, 4 snapshots became %d", n)
		}
		h.stop()
	})
}

// A snapshot that takes long to be flushed is not taken again meanwhile.
func TestAScheduledSnapshotMayBeFlushedSlowly(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		h := newHolder(t, c, 'a', "/f")
		h.late = true
		time.Sleep(time.Until(time.Now().Truncate(time.Hour).Add(time.Hour)))
		schedule(t, c, "/f", 2, 0)
		time.Sleep(10 * time.Minute)
		if n := len(h.answered()); n != 1 || shots(t, c, "/f") != 0 {
			t.Errorf("held %d times, %d snapshots shown", n, shots(t, c, "/f"))
		}
		if err := h.flushed(2); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		if n := len(h.answered()); n != 1 || shots(t, c, "/f") != 1 {
			t.Errorf("held %d times, %d snapshots shown", n, shots(t, c, "/f"))
		}
		h.stop()
	})
}

// Nobody has the file open: it is fenced before, and only then, and not again while nobody opens it.
func TestIdleFilesAreTakenOverForTheirSchedule(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		var times atomic.Int32
		takesOver(c, &times, func(*metapb.FileInfo) {})
		v := c.Client('a', 1).Open("/f")
		v.Settle()
		closeFile(t, c, v)
		schedule(t, c, "/f", 9, 9)
		c.Within(time.Minute, "a snapshot", func() bool { return shots(t, c, "/f") == 1 })
		if n := times.Load(); n != 1 {
			t.Errorf("taken over %d times", n)
		}
		time.Sleep(2 * time.Hour)
		if shots(t, c, "/f") > 1 || times.Load() > 1 {
			t.Error("another was taken, though nobody has opened it")
		}
		v = c.Client('a', 2).Open("/f")
		v.Settle()
		closeFile(t, c, v)
		c.Within(time.Hour, "one more", func() bool { return shots(t, c, "/f") == 2 })
		if s := snapshotsOf(t, c, "/f")[1]; s.Layer != 2 || s.Scheduled == 0 {
			t.Errorf("%v", s)
		}
	})
}

func closeFile(t *testing.T, c *metatest.Cluster, v *metatest.Volume) {
	t.Helper()
	if _, err := c.Leader().CloseFile(context.Background(), &metapb.CloseFileRequest{Client: v.ID, File: v.File, Epoch: v.Epoch, Clean: true}); err != nil {
		t.Fatal(err)
	}
}

// A client that opens the file after it was taken over may write: what was fenced before says nothing any more.
func TestASnapshotOfAnIdleFileIsGivenUpWhenItIsOpened(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		var times atomic.Int32
		takesOver(c, &times, func(*metapb.FileInfo) {
			v, err := c.Client('b', uint64(times.Load())).TryOpen("/f")
			if err == nil {
				v.Settle()
				closeFile(t, c, v) // and clean
			}
		})
		v := c.Client('a', 1).Open("/f")
		v.Settle()
		closeFile(t, c, v)
		schedule(t, c, "/f", 9, 0)
		c.Never(10*time.Minute, "a snapshot", func() bool { return shots(t, c, "/f") > 0 })
		if n := times.Load(); n < 2 {
			t.Errorf("tried %d times", n)
		}
	})
}

func TestASnapshotWithoutAHolderNeedsACleanFileOfThatEpoch(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		idle := func(epoch uint64) error {
			f, err := c.Leader().Lookup(context.Background(), &metapb.LookupRequest{Path: "/f"})
			if err != nil {
				return err
			}
			_, err = c.Leader().Propose(context.Background(), &fsmpb.Command{Command: &fsmpb.Command_TakeSnapshots{TakeSnapshots: &fsmpb.TakeSnapshots{Files: []*fsmpb.TakeSnapshot{
				{File: f.Id, Epoch: epoch, Idle: true, Snapshot: &fsmpb.Snapshot{Id: wish(1, "/f").Ids[0], Layer: 1}}}}}})
			return err
		}
		v := c.Client('a', 1).Open("/f")
		v.Settle()
		if idle(v.Epoch) == nil {
			t.Error("taken though somebody holds it")
		}
		if _, err := c.Leader().CloseFile(context.Background(), &metapb.CloseFileRequest{Client: v.ID, File: v.File, Epoch: v.Epoch}); err != nil {
			t.Fatal(err)
		}
		if idle(v.Epoch) == nil {
			t.Error("taken though it was not left clean")
		}
		v = c.Client('a', 2).Open("/f")
		v.Settle()
		closeFile(t, c, v)
		if idle(v.Epoch-1) == nil {
			t.Error("taken though it was opened since")
		}
		if err := idle(v.Epoch); err != nil {
			t.Error(err)
		}
	})
}
