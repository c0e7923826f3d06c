package raftstore

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// slowDisk is a backend whose writes take a while, or fail.
type slowDisk struct {
	*raft.InmemStore
	takes time.Duration
	fails error
}

func (s *slowDisk) StoreLogs(logs []*raft.Log) error {
	time.Sleep(s.takes)
	if s.fails != nil {
		return s.fails
	}
	return s.InmemStore.StoreLogs(logs)
}

func TestADiskThatHangsIsNoticedWhileItDoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &slowDisk{InmemStore: raft.NewInmemStore(), takes: time.Hour}
		found := make(chan error, 9)
		w := Watch(disk, 4*time.Second, func(err error) { found <- err })
		done := make(chan error, 1)
		go func() { done <- w.StoreLogs([]*raft.Log{entry(1)}) }()
		time.Sleep(4*time.Second - 1)
		synctest.Wait()
		if len(found) != 0 {
			t.Fatalf("too early: %v", <-found)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if len(found) != 1 || len(done) != 0 {
			t.Fatalf("found %d; the write has ended: %v", len(found), len(done) == 1)
		}
		if err := <-found; !errors.Is(err, ErrHangs) {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n, took := w.Written(); n != 1 || took != time.Hour {
			t.Errorf("%d writes took %v", n, took)
		}
	})
}

// A process that was stopped sees the end of a timer late, and only of the one that it had set.
func TestAPauseOfTheProcessIsNoHangingDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		rung := 0
		a := newAlarm(4*time.Second, func() { rung++ })
		for range 6 {
			a.timer.Stop()
			time.Sleep(10 * time.Second)
			a.next()
		}
		if rung > 0 {
			t.Error("the disk is said to hang after pauses of the process")
		}
		time.Sleep(time.Second) // two parts
		synctest.Wait()
		if rung != 1 {
			t.Errorf("rung %d times for a disk that hangs after pauses of the process", rung)
		}
		time.Sleep(time.Minute)
		a.stop()
		if rung != 1 {
			t.Errorf("rung %d times", rung)
		}
	})
}

func TestWhatEndsInTimeIsNoTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &slowDisk{InmemStore: raft.NewInmemStore(), takes: 3 * time.Second}
		w := Watch(disk, 4*time.Second, func(err error) { t.Errorf("trouble: %v", err) })
		if err := w.StoreLogs([]*raft.Log{entry(1)}); err != nil {
			t.Fatal(err)
		}
		if err := w.GetLog(2, &raft.Log{}); !errors.Is(err, raft.ErrLogNotFound) {
			t.Error(err)
		}
		if _, err := w.Get([]byte("absent")); err == nil {
			t.Error("an absent value was found")
		}
		time.Sleep(time.Hour)
	})
}

func TestAWriteThatFailedIsTrouble(t *testing.T) {
	lost := errors.New("input/output error")
	disk := &slowDisk{InmemStore: raft.NewInmemStore(), fails: lost}
	var found error
	w := Watch(disk, time.Second, func(err error) { found = err })
	if err := w.StoreLogs([]*raft.Log{entry(1)}); !errors.Is(err, lost) || !errors.Is(found, lost) {
		t.Errorf("returned %v, reported %v", err, found)
	}
}
