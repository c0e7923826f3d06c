package scsi

import (
	"testing"
	"testing/synctest"

	"pstorage/blockstore/block"
)

// slowWrites keeps writes until it is told to go on, and does the rest.
type slowWrites struct {
	block.Device
	onward chan struct{}
}

func (s *slowWrites) Submit(batch []*block.Request) {
	if batch[0].Op != block.Write {
		s.Device.Submit(batch)
		return
	}
	kept := []*block.Request{batch[0]}
	go func() {
		<-s.onward
		s.Device.Submit(kept)
	}()
}

func TestSanitizeBeginsWhenWritesUnderWayHaveEnded(t *testing.T) {
	for name, write := range map[string]func(*rig) *Task{
		"write":      func(r *rig) *Task { return r.run(cdb16(opWrite16, 0, 8, 4), pattern(4, 1), 0) },
		"write same": func(r *rig) *Task { return r.run(cdb16(opWriteSame16, 0, 8, 4096), pattern(1, 1), 0) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { sanitizeDuring(t, write) })
		})
	}
}

func sanitizeDuring(t *testing.T, write func(*rig) *Task) {
	r := newRig(t, Options{})
	slow := &slowWrites{r.mem, make(chan struct{})}
	r.lu.dev = slow
	written, erased := make(chan *Task, 1), make(chan *Task, 1)
	go func() { written <- write(r) }()
	synctest.Wait()
	go func() { erased <- r.run(sanitize(saBlockErase), nil, 0) }()
	synctest.Wait()
	if len(erased) > 0 {
		t.Error("it has ended while a write was at the device")
	}
	r.bad(keyNotReady, ascSanitizing, cdb16(opWrite16, 0, 8, 4), pattern(4, 2))
	close(slow.onward)
	if task := <-written; task.Status != Good {
		t.Errorf("the write: %s", describeSense(task))
	}
	if task := <-erased; task.Status != Good {
		t.Errorf("SANITIZE: %s", describeSense(task))
	}
	if !allZero(r.read(0, 5000)) {
		t.Error("the write came after it")
	}
}

// A write whose data come after SANITIZE has begun must not be done, though it was let in before.
func TestWritesThatWaitForTheirDataAreRefusedOnceSanitizeHasBegun(t *testing.T) {
	r := newRig(t, Options{})
	late := &Task{}
	late.Reset()
	copy(late.CDB[:], cdb16(opWrite16, 0, 8, 1))
	late.CDBLen, late.OutMax = 16, 512
	r.Prepare(late)
	if late.failed() {
		t.Fatal(describeSense(late))
	}
	late.Buf = pattern(1, 1)
	h := &heldBack{Device: r.mem, came: make(chan struct{}), onward: make(chan struct{})}
	r.lu.dev = h
	done := make(chan *Task)
	go func() { done <- r.run(sanitize(saBlockErase), nil, 0) }()
	<-h.came
	if v := late.Start(); v != Done || late.Status != CheckCondition || late.sense.code != ascSanitizing {
		t.Errorf("verdict %d, %s", v, describeSense(late))
	}
	close(h.onward)
	<-done
}

// A task that the transport gives up at the device has left when the transport releases it.
func TestAbandonedWritesDoNotHoldUpSanitize(t *testing.T) {
	r := newRig(t, Options{})
	doomed := &Task{}
	doomed.Reset()
	copy(doomed.CDB[:], cdb16(opWrite16, 0, 8, 1))
	doomed.CDBLen, doomed.OutMax = 16, 512
	doomed.Req.Done = make(waiter, 1)
	r.Prepare(doomed)
	doomed.Buf = pattern(1, 1)
	if v := doomed.Start(); v != Submit {
		t.Fatal(v)
	}
	r.lu.Submit([]*block.Request{&doomed.Req})
	doomed.Release()
	r.good(sanitize(saBlockErase), nil)
	if n := r.lu.writers.n.Load(); n != 0 {
		t.Errorf("%d writers are left", n)
	}
}

func TestSanitizeWaitsForACopyFromAnotherLogicalUnit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := coupled(t, sameHost)
		slow := &slowWrites{b.mem, make(chan struct{})}
		b.lu.dev = slow
		a.good(cdb16(opWrite16, 0, 0, 8), pattern(8, 1))
		list := copyList(1, [][]byte{cscd(a.lu.naa(), 512), cscd(b.lu.naa(), 4096)}, [][]byte{blocks(0, 0, 1, 8, 0, 0)})
		copied, erased := make(chan *Task, 1), make(chan *Task, 1)
		go func() { copied <- a.run(copyCDB(list), list, 0) }()
		synctest.Wait()
		go func() { erased <- b.run(sanitize(saBlockErase), nil, 0) }()
		synctest.Wait()
		if len(erased) > 0 {
			t.Error("it has ended while the copy was writing")
		}
		close(slow.onward)
		if task := <-copied; task.Status != Good {
			t.Errorf("the copy: %s", describeSense(task))
		}
		if task := <-erased; task.Status != Good {
			t.Errorf("SANITIZE: %s", describeSense(task))
		}
		if !allZero(b.in(cdb16(opRead16, 0, 0, 1), 4096)) || a.lu.writers.n.Load()+b.lu.writers.n.Load() != 0 {
			t.Error("the copy came after it, or still counts")
		}
	})
}
