package blockstore

import (
	"sync"

	"pstorage/cs/chunk"
	"pstorage/cs/wire"
)

// exchange is a set of calls made together by a goroutine that waits for the answers: the slow path's way to talk to servers.
type exchange struct {
	calls []*call
	wg    sync.WaitGroup
}

// add prepares a call to a server.
func (x *exchange) add(v *Volume, vs *vserver, w wire.Call) *call {
	c := &call{Call: w}
	if c.Chunk == (chunk.ID{}) {
		c.Chunk = chunk.ID{File: v.file}
	}
	c.Epoch, c.Done = v.epoch, x
	c.vs = vs
	x.calls = append(x.calls, c)
	return c
}

// run sends all and waits. The deadline of the links bounds the wait.
func (x *exchange) run(v *Volume) {
	if len(x.calls) == 0 {
		return
	}
	b := v.newBatch()
	x.wg.Add(len(x.calls))
	for _, c := range x.calls {
		c.begin(c.vs, int64(len(c.Data)), true)
		b.add(c.vs.link, &c.Call)
	}
	v.finishBatch(b)
	x.wg.Wait()
}

// CompleteCalls implements wire.Completer.
func (x *exchange) CompleteCalls(calls []*wire.Call) {
	for _, w := range calls {
		w.Owner.(*call).end()
	}
	x.wg.Add(-len(calls))
}

// ok reports whether every call went well.
func (x *exchange) ok() bool {
	for _, c := range x.calls {
		if c.Err != nil || c.Status != wire.OK {
			return false
		}
	}
	return true
}
