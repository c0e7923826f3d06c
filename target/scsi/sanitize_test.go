package scsi

import (
	"encoding/binary"
	"errors"
	"testing"

	"pstorage/blockstore/block"
)

func sanitize(action byte) []byte { return []byte{opSanitize, action, 0, 0, 0, 0, 0, 0, 0, 0} }

// heldBack keeps discards until it is told to go on.
type heldBack struct {
	block.Device
	came, onward chan struct{}
	err          error
}

func (h *heldBack) Submit(batch []*block.Request) {
	if batch[0].Op != block.Discard {
		h.Device.Submit(batch)
		return
	}
	go func() {
		h.came <- struct{}{}
		<-h.onward
		if h.err == nil {
			h.Device.Submit(batch)
			return
		}
		batch[0].Err = h.err
		batch[0].Done.Complete(batch)
	}()
}

func TestEraseLeavesZerosAndLetsNothingElseInMeanwhile(t *testing.T) {
	r := newRig(t, Options{})
	h := &heldBack{Device: r.mem, came: make(chan struct{}), onward: make(chan struct{})}
	r.lu.dev = h
	r.good(cdb16(opWrite16, 0, 100, 4), pattern(4, 1))
	done := make(chan *Task)
	go func() { done <- r.run(sanitize(saBlockErase), nil, 0) }()
	<-h.came
	other := r.on(r.attach("iqn.test:b,i,0x2"))
	other.bad(keyNotReady, ascSanitizing, []byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil)
	other.bad(keyNotReady, ascSanitizing, cdb16(opRead16, 0, 0, 1), nil)
	other.bad(keyNotReady, ascSanitizing, sanitize(saBlockErase), nil)
	other.in([]byte{opInquiry, 0, 0, 0, 96, 0}, 96)
	close(h.onward)
	if task := <-done; task.Status != Good {
		t.Fatalf("status %02x %s", task.Status, describeSense(task))
	}
	if !allZero(other.read(100, 4)) {
		t.Error("the data are still there")
	}
}

func TestEraseThatFailsIsRememberedUntilItIsForgiven(t *testing.T) {
	r := newRig(t, Options{})
	h := &heldBack{Device: r.mem, came: make(chan struct{}, 9), onward: make(chan struct{}), err: errors.New("no")}
	close(h.onward)
	r.lu.dev = h
	r.bad(keyMedium, ascSanitizeFailed, sanitize(flagUnrestricted|saBlockErase), nil)
	r.bad(keyMedium, ascSanitizeFailed, cdb16(opRead16, 0, 0, 1), nil)
	r.good(sanitize(saExitFailure), nil)
	r.read(0, 1)
}

func TestAFailureInRestrictedModeIsEndedBySuchASanitizeAlone(t *testing.T) {
	r := newRig(t, Options{})
	h := &heldBack{Device: r.mem, came: make(chan struct{}, 9), onward: make(chan struct{}), err: errors.New("no")}
	close(h.onward)
	r.lu.dev = h
	r.bad(keyMedium, ascSanitizeFailed, sanitize(saBlockErase), nil)
	r.bad(keyIllegal, ascInvalidFieldCDB, sanitize(saExitFailure), nil)
	r.bad(keyIllegal, ascInvalidFieldCDB, sanitize(flagUnrestricted|saBlockErase), nil)
	r.bad(keyMedium, ascSanitizeFailed, cdb16(opRead16, 0, 0, 1), nil)
	h.err = nil
	r.good(sanitize(saBlockErase), nil)
	r.read(0, 1)
	r.good(sanitize(saExitFailure), nil)
}

func TestRequestSenseTellsHowFarTheErasingIs(t *testing.T) {
	r := newRig(t, Options{})
	r.grow(4 * erasePiece)
	h := &heldBack{Device: r.mem, came: make(chan struct{}), onward: make(chan struct{})}
	r.lu.dev = h
	done := make(chan *Task)
	go func() { done <- r.run(sanitize(flagUnrestricted|saBlockErase), nil, 0) }()
	other := r.on(r.attach("iqn.test:b,i,0x2"))
	ask := []byte{opRequestSense, 1, 0, 0, 252, 0}
	for pieces := range 4 {
		<-h.came
		b := other.in(ask, 252)
		want := uint16(pieces * (1<<16 - 1) / 4)
		if b[1] != keyNotReady || binary.BigEndian.Uint16(b[2:]) != uint16(ascSanitizing) || b[8] != 2 || b[12] != 0x80 || binary.BigEndian.Uint16(b[13:]) != want {
			t.Errorf("after %d of 4 pieces: % x", pieces, b)
		}
		if task := other.bad(keyNotReady, ascSanitizing, []byte{opTestUnitReady, 0, 0, 0, 0, 0}, nil); task.sense.progress != want {
			t.Errorf("after %d of 4 pieces TEST UNIT READY tells %d", pieces, task.sense.progress)
		}
		if pieces == 3 {
			h.err = errors.New("no")
		}
		h.onward <- struct{}{}
	}
	<-done
	if b := other.in(ask, 252); b[1] != keyMedium || binary.BigEndian.Uint16(b[2:]) != uint16(ascSanitizeFailed) {
		t.Errorf("after it failed: % x", b)
	}
	r.good(sanitize(saExitFailure), nil)
	if b := other.in(ask, 252); b[1] != keyNoSense {
		t.Errorf("after it was forgiven: % x", b)
	}
}

func TestSanitizeTakesNoOtherFields(t *testing.T) {
	r := newRig(t, Options{})
	for i, v := range map[int]byte{1: 0x40 | saBlockErase, 2: 1, 6: 1, 8: 4} {
		cdb := sanitize(saBlockErase)
		cdb[i] = v
		r.bad(keyIllegal, ascInvalidFieldCDB, cdb, nil)
	}
	r.bad(keyIllegal, ascInvalidFieldCDB, sanitize(3), nil)
	for _, n := range []int{0, 4, 4 + 512 + 1} {
		r.bad(keyIllegal, ascInvalidFieldCDB, overwriteCDB(0, n), make([]byte, n))
	}
	for what, list := range map[string][]byte{
		"no pass": {0, 0, 0, 1, 7}, "a test": {0x21, 0, 0, 1, 7}, "reserved": {1, 1, 0, 1, 7}, "no pattern": {1, 0, 0, 0, 7}, "less than told": {1, 0, 0, 2, 7},
	} {
		if task := r.run(overwriteCDB(0, len(list)), list, 0); task.sense.code != ascInvalidFieldParam {
			t.Errorf("%s: %s", what, describeSense(task))
		}
	}
	if r.lu.has(sanitizing) {
		t.Error("what was refused has begun")
	}
}

func TestLogPagesAreThoseListed(t *testing.T) {
	r := newRig(t, Options{})
	list := r.in([]byte{opLogSense, 0, 0x40, 0, 0, 0, 0, 1, 0, 0}, 256)
	for _, page := range list[4:] {
		b := r.in([]byte{opLogSense, 0, 0x40 | page, 0, 0, 0, 0, 1, 0, 0}, 256)
		if b[0]&0x3f != page || int(binary.BigEndian.Uint16(b[2:])) != len(b)-4 {
			t.Errorf("page %x: % x", page, b)
		}
	}
	r.bad(keyIllegal, ascInvalidFieldCDB, []byte{opLogSense, 0, 0x40 | 0x0d, 0, 0, 0, 0, 1, 0, 0}, nil)
}
