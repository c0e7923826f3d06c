package scsi

import (
	"errors"

	"pstorage/blockstore/block"
)

// errOneWay: there is nothing to choose from.
var errOneWay = errors.New("the target has one port group, whose state does not change")

// failure pairs an error of the device with what initiators are told.
type failure struct {
	err  error
	key  byte
	code code
}

// failures is searched in order. A device that is unavailable is becoming ready: initiators wait and try again. One
// whose lease is lost or that is closed is gone from this target port: multipath turns to another path at once.
var failures = []failure{
	{block.ErrNoSpace, keyDataProtect, ascSpaceAllocation},
	{block.ErrReadOnly, keyDataProtect, ascWriteProtected},
	{block.ErrRange, keyIllegal, ascRange},
	{block.ErrUnavailable, keyNotReady, ascBecomingReady},
	{block.ErrLostLease, keyNotReady, ascUnavailable},
	{block.ErrClosed, keyNotReady, ascUnavailable},
}

// deviceError ends the task with the sense data for an error of its request.
func (t *Task) deviceError() {
	err := t.Req.Err
	switch {
	case errors.Is(err, block.ErrMiscompare):
		t.failInfo(keyMiscompare, ascMiscompare, uint64(t.Req.Miscompare))
		return
	case errors.Is(err, block.ErrIO), errors.Is(err, block.ErrCorrupt):
		t.failInfo(keyMedium, t.mediumError(), t.lu.inBlocks(t.Req.Offset))
		return
	}
	for i := range failures {
		if errors.Is(err, failures[i].err) {
			t.fail(failures[i].key, failures[i].code)
			return
		}
	}
	t.fail(keyHardware, ascInternal)
}

func (t *Task) mediumError() code {
	if t.Req.Op == block.Read {
		return ascReadError
	}
	return ascWriteError
}
