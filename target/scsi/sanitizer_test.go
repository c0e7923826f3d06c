package scsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
)

func overwriteCDB(flags byte, list int) []byte {
	b := sanitize(flags | saOverwrite)
	binary.BigEndian.PutUint16(b[7:], uint16(list))
	return b
}

// overwrite runs SANITIZE with OVERWRITE.
func (r *rig) overwrite(flags, passes byte, pattern ...byte) *Task {
	r.t.Helper()
	list := append([]byte{passes, 0, 0, byte(len(pattern))}, pattern...)
	return r.run(overwriteCDB(flags, len(list)), list, 0)
}

// shelf is a store of reservations that may fail, and outlives LUs.
type shelf struct {
	mu    sync.Mutex
	state ReservationState
	fail  bool
	saves int
}

func (s *shelf) Load([16]byte) (ReservationState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state, nil
}

func (s *shelf) Save(_ [16]byte, state ReservationState) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.saves++; s.fail {
		return errors.New("no")
	}
	s.state = state
	return nil
}

func (s *shelf) Durable() bool { return true }

func (s *shelf) failing(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = on
}

// blank is a device that keeps nothing but where it was written, in order.
type blank struct {
	size   int64
	mu     sync.Mutex
	writes []int64
	firsts []byte // of the data
	err    error
}

func (b *blank) Size() int64 { return b.size }

func (b *blank) Extents(context.Context, int64, int64, int) ([]block.Extent, error) {
	return nil, block.ErrUnavailable
}

func (b *blank) Close() error { return nil }

func (b *blank) Submit(batch []*block.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range batch {
		if r.Err = b.err; r.Err == nil && r.Op == block.Write {
			b.writes, b.firsts = append(b.writes, r.Offset), append(b.firsts, r.Data[0])
		}
		r.Done.Complete([]*block.Request{r})
	}
}

func (b *blank) written() []int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.writes
}

func (b *blank) failWith(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

// newSanitizing is a rig on a device, which is closed by the caller.
func newSanitizing(t *testing.T, dev block.Device, o Options) *rig {
	r := &rig{t: t, lu: NewLU(dev, block.VolumeInfo{Name: "v", ID: [16]byte{1}}, o)}
	r.Nexus = r.attach("iqn.test:a,i,0x1")
	return r
}

func TestOverwriteLeavesThePatternInEveryBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, size := range []int{512, 4096} {
			r := newSanitizing(t, block.NewMemory(testSize+512), Options{BlockSize: size})
			if task := r.overwrite(0, 1, 1, 2, 3); task.Status != Good {
				t.Fatal(describeSense(task))
			}
			blocks := testSize / size
			data := r.in(cdb16(opRead16, 0, 0, uint32(blocks)), testSize)
			want := bytes.Repeat([]byte{1, 2, 3}, size)[:size]
			for i := range blocks {
				if !bytes.Equal(data[i*size:(i+1)*size], want) {
					t.Fatalf("block %d of %d bytes is % x...", i, size, data[i*size:i*size+8])
				}
			}
			r.lu.Close()
		}
	})
}

func TestPassesInvertThePatternButTheLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for passes, want := range map[byte]string{1: "\x5a", 2: "\x5a\x5a", flagInvert | 2: "\xa5\x5a", flagInvert | 3: "\x5a\xa5\x5a"} {
			dev := &blank{size: overwritePiece}
			r := newSanitizing(t, dev, Options{})
			r.overwrite(0, passes, 0x5a)
			if string(dev.firsts) != want {
				t.Errorf("%x: % x, want % x", passes, dev.firsts, want)
			}
			r.lu.Close()
		}
	})
}

func TestOverwritingTakesItsTimeAndTellsHowFarItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newSanitizing(t, &blank{size: 4 * overwriteRate}, Options{})
		defer r.lu.Close()
		if task := r.overwrite(flagImmediate, 2, 0); task.Status != Good {
			t.Fatal(describeSense(task))
		}
		began := time.Now()
		time.Sleep(2*time.Second + time.Millisecond)
		task := r.bad(keyNotReady, ascSanitizing, []byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil)
		if p := task.sense.progress; p < 1<<14-1 || p > 1<<14+200 {
			t.Errorf("after a quarter %d of 65536 are done", p)
		}
		r.lu.sanitizer.working.Wait()
		if took := time.Since(began); took < 8*time.Second || took > 8*time.Second+time.Millisecond {
			t.Errorf("two passes of 4 seconds took %v", took)
		}
	})
}

func TestSanitizeGoesOnWithoutItsTask(t *testing.T) {
	r := newRig(t, Options{})
	h := &heldBack{Device: r.mem, came: make(chan struct{}), onward: make(chan struct{})}
	r.lu.dev = h
	r.good(cdb16(opWrite16, 0, 100, 4), pattern(4, 1))
	task := &Task{}
	task.Reset()
	copy(task.CDB[:], sanitize(saBlockErase))
	task.CDBLen = 16
	done := make(waiter, 1)
	task.Req.Done = done
	r.Prepare(task)
	if v := task.Start(); v != Pending {
		t.Fatal(v)
	}
	<-h.came
	r.lu.Abandon(task)
	r.lu.Abandon(task)
	<-done
	r.lu.Reset()
	r.takeAttention()
	r.bad(keyNotReady, ascSanitizing, []byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil)
	close(h.onward)
	r.lu.sanitizer.working.Wait()
	for r.lu.has(sanitizing) {
		runtime.Gosched()
	}
	if !allZero(r.read(100, 4)) {
		t.Error("the data are still there")
	}
	if len(done) > 0 {
		t.Error("the task came back twice")
	}
}

// A task that is aborted before it starts begins nothing.
func TestSanitizeThatIsAbortedBeforeItStartsDoesNotBegin(t *testing.T) {
	r := newRig(t, Options{})
	task := &Task{}
	task.Reset()
	copy(task.CDB[:], sanitize(saBlockErase))
	task.CDBLen = 16
	r.Prepare(task)
	r.lu.Abandon(task)
	if v := task.Start(); v != Done {
		t.Fatal(v)
	}
	r.good([]byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil)
}

func TestTheNextUnitGoesOnWhereTheLastOneWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, kept := &blank{size: 20 * overwriteRate}, &shelf{}
		first := newSanitizing(t, dev, Options{Reservations: kept})
		first.overwrite(flagImmediate, 1, 7)
		time.Sleep(15 * time.Second)
		first.lu.Halt()
		first.lu.Close()
		before := len(dev.written())
		next := newSanitizing(t, dev, Options{Reservations: kept})
		next.bad(keyNotReady, ascSanitizing, cdb16(opRead16, 0, 0, 1), nil)
		next.lu.Resume()
		next.lu.sanitizer.working.Wait()
		synctest.Wait()
		next.good([]byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil)
		next.lu.Close()
		all := dev.written()
		// keepEvery is over after 10 seconds of work, so what had been done by then is not done again.
		if from := all[before] / overwriteRate; from != 10 {
			t.Errorf("the next one went on from second %d, not 10", from)
		}
		for i := range all[before:] {
			if want := all[before] + int64(i)*overwritePiece; all[before+i] != want {
				t.Fatalf("piece %d is at %d, not %d", i, all[before+i], want)
			}
		}
		if last := all[len(all)-1]; last != dev.size-overwritePiece {
			t.Errorf("the last piece is at %d", last)
		}
		if kept.state.Sanitize.Action != 0 {
			t.Errorf("%+v is kept", kept.state.Sanitize)
		}
	})
}

func TestAFailureIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, kept := &blank{size: 4 * overwriteRate}, &shelf{}
		first := newSanitizing(t, dev, Options{Reservations: kept})
		first.overwrite(flagImmediate|flagUnrestricted, 1, 7)
		time.Sleep(time.Second)
		dev.failWith(block.ErrIO)
		first.lu.sanitizer.working.Wait()
		first.lu.Close()
		dev.failWith(nil)
		next := newSanitizing(t, dev, Options{Reservations: kept})
		defer next.lu.Close()
		next.lu.Resume()
		next.bad(keyMedium, ascSanitizeFailed, cdb16(opRead16, 0, 0, 1), nil)
		next.good(sanitize(saExitFailure), nil)
		next.good([]byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil)
		if kept.state.Sanitize.Action != 0 {
			t.Errorf("%+v is kept", kept.state.Sanitize)
		}
	})
}

// Neither is the medium touched, nor is anybody answered, before it is kept what is done; and nobody is told of the end before that is kept.
func TestWhatIsSanitizedIsKeptFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev, kept := &blank{size: overwriteRate}, &shelf{fail: true}
		r := newSanitizing(t, dev, Options{Reservations: kept})
		defer r.lu.Close()
		done := make(chan *Task, 1)
		go func() { done <- r.overwrite(flagImmediate, 1, 7) }()
		time.Sleep(3*sanitizeRetry + time.Millisecond)
		if len(done) > 0 || len(dev.written()) > 0 || kept.saves != 4 {
			t.Errorf("%d answers, %d writes and %d attempts while it cannot be kept", len(done), len(dev.written()), kept.saves)
		}
		kept.failing(false)
		if task := <-done; task.Status != Good || !kept.state.Sanitize.active() {
			t.Errorf("status %x, kept %+v", task.Status, kept.state.Sanitize)
		}
		kept.failing(true)
		time.Sleep(time.Minute)
		r.bad(keyNotReady, ascSanitizing, []byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil)
		kept.failing(false)
		r.lu.sanitizer.working.Wait()
		synctest.Wait()
		r.good([]byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil)
	})
}

// hostile notes what an LU tells its host.
type hostile struct{ works, rests, failures int }

func (h *hostile) Work() bool { h.works++; return true }

func (h *hostile) Rest(failed bool) {
	if h.rests++; failed {
		h.failures++
	}
}

func TestADeviceThatIsGoneLeavesTheOperationToTheNextUnit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, early := range []bool{false, true} {
			dev, kept, host := &blank{size: 4 * overwriteRate}, &shelf{fail: early}, &hostile{}
			r := newSanitizing(t, dev, Options{Reservations: kept, Host: host})
			done := make(chan *Task, 1)
			go func() { done <- r.overwrite(0, 1, 7) }()
			time.Sleep(time.Second)
			dev.failWith(block.ErrLostLease)
			if task := <-done; task.sense.code != ascSanitizing {
				t.Error(describeSense(task))
			}
			synctest.Wait()
			if host.works != 1 || host.rests != 1 || host.failures != 1 || kept.state.Sanitize.active() == early {
				t.Errorf("%+v, kept %+v", host, kept.state.Sanitize)
			}
			r.lu.Close()
		}
	})
}

func TestADeviceThatIsUnavailableIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dev := &blank{size: overwriteRate}
		r := newSanitizing(t, dev, Options{})
		defer r.lu.Close()
		dev.failWith(block.ErrUnavailable)
		r.overwrite(flagImmediate, 1, 7)
		time.Sleep(time.Minute)
		dev.failWith(nil)
		r.lu.sanitizer.working.Wait()
		synctest.Wait()
		r.good([]byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil)
		if n := len(dev.written()); n != overwriteRate/overwritePiece {
			t.Errorf("%d pieces", n)
		}
	})
}

// R9loss: what a loss may have undone is done again, from the last flush on.
func TestWhatIsLostIsSanitizedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		under := &blank{size: 20 * overwriteRate}
		dev := &blocktest.Lossy{Device: under}
		r := newSanitizing(t, dev, Options{})
		defer r.lu.Close()
		r.overwrite(flagImmediate, 1, 7)
		time.Sleep(15 * time.Second)
		dev.Lose()
		r.lu.sanitizer.working.Wait()
		times := map[int64]int{}
		for _, at := range under.written() {
			times[at/overwriteRate]++
		}
		for second := range int64(20) {
			want := overwriteRate / overwritePiece
			if second >= 10 {
				want *= 2 // up to the flush after 20 seconds
			}
			if times[second] != want {
				t.Errorf("second %d: %d pieces, want %d", second, times[second], want)
			}
		}
	})
}
