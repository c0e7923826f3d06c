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

// failures is searched in order. A device that is unavailable is becoming ready: initiators wait and try again. So is one whose
// lease is lost or that is closed, since the transport opens its volume again (Gone). A flush of which writes are lost is not to be tried again,
// as initiators do after a unit attention or an error of the medium: the next one succeeds.
var failures = []failure{
	{block.ErrNoSpace, keyDataProtect, ascSpaceAllocation},
	{block.ErrReadOnly, keyDataProtect, ascWriteProtected},
	{block.ErrRange, keyIllegal, ascRange},
	{block.ErrLostWrites, keyHardware, ascWriteError},
	{block.ErrUnavailable, keyNotReady, ascBecomingReady},
	{block.ErrLostLease, keyNotReady, ascBecomingReady},
	{block.ErrClosed, keyNotReady, ascBecomingReady},
}

// Gone reports whether an error means that the device can do nothing any more.
func Gone(err error) bool {
	return errors.Is(err, block.ErrLostLease) || errors.Is(err, block.ErrClosed)
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
