package blockstore

import (
	"pstorage/cs/wire"
	"pstorage/meta/rules"
)

// fenceServers tells every server not fenced yet, that can be reached, of this volume's epoch (R5): one round trip each. What it
// answers with are its open chunks, whose replicas may differ.
func (v *Volume) fenceServers() {
	x := &exchange{}
	for _, vs := range v.allServers() {
		if vs.fenced.Load() || !vs.link.is(linkUp) {
			continue
		}
		if v.opt.leftOut.Has(rules.R5fence) {
			vs.fenced.Store(true)
			continue
		}
		x.add(v, vs, wire.Call{Op: wire.OpFence})
	}
	for len(x.calls) > 0 {
		x.run(v)
		rest := &exchange{}
		for _, c := range x.calls {
			if c.Err != nil {
				continue
			}
			if next, more := v.fenceAnswer(c); more {
				rest.add(v, c.vs, wire.Call{Op: wire.OpFence, Offset: next})
			}
		}
		x = rest
	}
	v.clearFence()
}

// fenceAnswer takes an answer; more says that the server has further open chunks, from next on.
func (v *Volume) fenceAnswer(c *call) (next uint32, more bool) {
	switch c.Status {
	case wire.OK:
		last, err := v.openAt(c.Reply)
		switch {
		case err != nil:
			v.log.Error("list of open chunks", "server", c.vs.id, "error", err)
			c.vs.condemn("its list of open chunks cannot be read")
		case c.Aux0 > 0 && last < c.Offset:
			c.vs.condemn("its list of open chunks does not go on")
		case c.Aux0 > 0: // they do not fit into one answer
			return last + 1, true
		default:
			c.vs.refusedSince = 0
			c.vs.fenced.Store(true)
		}
	case wire.StaleEpoch:
		v.lose("a chunk server has been fenced by a newer holder")
	case wire.NotAdmitted, wire.SessionOver, wire.Suspect:
		v.notAdmitted(c.vs)
	default:
		c.vs.condemn("fence: " + c.Status.String())
	}
	return 0, false
}

// notAdmitted: a server that has just started is waited for a little, then dropped where another replica is good. Nothing has failed there, so
// what waits goes on waiting where none is (reasonToDrop).
func (v *Volume) notAdmitted(vs *vserver) {
	if vs.refusedSince == 0 {
		vs.refusedSince = v.c.now()
	}
}

// openAt takes a part of a server's list of open chunks, in rising order, and returns its last. One that this holder uses already it has
// opened itself.
func (v *Volume) openAt(reply []byte) (last uint32, err error) {
	open, err := wire.DecodeChunkVersions(reply)
	if err != nil {
		return 0, err
	}
	for _, e := range open {
		last = max(last, e.Index)
		ch := v.table.find(e.Index)
		if ch == nil {
			continue // of a replica that is no member
		}
		ch.mu.Lock()
		if !ch.opened && ch.version != 0 && !v.opt.leftOut.Has(rules.R5reconcile) {
			ch.whole = true
			v.need(ch, needReconcile)
		}
		ch.mu.Unlock()
	}
	return last, nil
}

// clearFence lets chunks go on all of whose members are fenced.
func (v *Volume) clearFence() {
	for _, ch := range v.stuckChunks() {
		ch.mu.Lock()
		if ch.trouble&needFence != 0 {
			all := true
			ch.members(func(vs *vserver) { all = all && vs.fenced.Load() })
			if all || v.opt.leftOut.Has(rules.R5perchunk) {
				ch.trouble &^= needFence
			}
		}
		ch.mu.Unlock()
	}
}
