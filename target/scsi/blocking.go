package scsi

import (
	"context"

	"pstorage/blockstore/block"
)

// startBlocking leaves the command to a goroutine of the LU, because it may take long: it asks the device about its
// extents or changes what is kept elsewhere.
func startBlocking(t *Task) bool {
	t.request(block.Read, 0, nil, 0)
	t.lu.blocking.add(t)
	return false
}

// execute runs the command and completes it as if it had been a request.
func (t *Task) execute(ctx context.Context) {
	switch t.cmd.op {
	case opReserveOut:
		t.lu.reserveOut(t)
	case opSanitize:
		u := t.lu
		u.exitFailure(t)
		t.complete()
	case opMaintenanceOut:
		t.lu.setGroups(ctx, t)
	default:
		t.Req.Err = t.lbaStatus(ctx)
		t.complete()
	}
}

func (t *Task) complete() {
	batch := [1]*block.Request{&t.Req}
	t.Req.Done.Complete(batch[:])
}
