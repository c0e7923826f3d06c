package blockstore

import (
	"pstorage/cs/wire"
)

// fenceServers tells every server not fenced yet, that can be reached, of this volume's epoch (R5): one round trip each. What it
// answers with are its open chunks, whose replicas may differ.
func (v *Volume) fenceServers() {
	var x exchange
	for _, vs := range v.allServers() {
		if vs.fenced.Load() || !vs.link.is(linkUp) {
			continue
		}
		if v.opt.leftOut&ruleR5fence != 0 {
			vs.fenced.Store(true)
			continue
		}
		x.add(v, vs, wire.Call{Op: wire.OpFence})
	}
	x.run(v)
	for _, c := range x.calls {
		if c.Err == nil {
			v.fenceAnswer(c)
		}
	}
	v.clearFence()
}

func (v *Volume) fenceAnswer(c *call) {
	switch c.Status {
	case wire.OK:
		if err := v.fenced(c.vs, c.Reply); err != nil {
			v.log.Error("list of open chunks", "server", c.vs.id, "error", err)
			c.vs.condemn("its list of open chunks cannot be read")
		}
	case wire.StaleEpoch:
		v.lose("a chunk server has been fenced by a newer holder")
	case wire.NotAdmitted, wire.SessionOver, wire.Suspect:
		v.notAdmitted(c.vs)
	default:
		c.vs.condemn("fence: " + c.Status.String())
	}
}

// notAdmitted: a server that has just started is waited for a little.
func (v *Volume) notAdmitted(vs *vserver) {
	now := v.c.now()
	if vs.refusedSince == 0 {
		vs.refusedSince = now
	}
	if now-vs.refusedSince > int64(admissionGrace) {
		vs.condemn("server is not admitted")
	}
}

// fenced takes a server's list of open chunks. One that this holder uses already it has opened itself.
func (v *Volume) fenced(vs *vserver, reply []byte) error {
	open, err := wire.DecodeChunkVersions(reply)
	if err != nil {
		return err
	}
	for _, e := range open {
		ch := v.table.find(e.Index)
		if ch == nil {
			continue // of a replica that is no member
		}
		ch.mu.Lock()
		if !ch.opened && ch.version != 0 && v.opt.leftOut&ruleR5reconcile == 0 {
			ch.whole = true
			v.need(ch, needReconcile)
		}
		ch.mu.Unlock()
	}
	vs.refusedSince = 0
	vs.fenced.Store(true)
	return nil
}

// clearFence lets chunks go on all of whose members are fenced.
func (v *Volume) clearFence() {
	for _, ch := range v.stuckChunks() {
		ch.mu.Lock()
		if ch.trouble&needFence != 0 {
			all := true
			ch.members(func(vs *vserver) { all = all && vs.fenced.Load() })
			if all || v.opt.leftOut&ruleR5perchunk != 0 {
				ch.trouble &^= needFence
			}
		}
		ch.mu.Unlock()
	}
}
