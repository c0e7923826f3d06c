package scsi

import "pstorage/blockstore/block"

const (
	startBit   = 0x01
	loadEject  = 0x02
	noFlush    = 0x04
	powerField = 0xf0
)

func prepareStartStop(t *Task) {
	if t.CDB[4]&loadEject != 0 && t.CDB[4]&powerField == 0 && t.lu.has(removable) && t.lu.removalPrevented() {
		t.fail(keyIllegal, ascRemovalPrevented)
	}
}

// startStartStop: the unit is always ready and has no power conditions, so stopping flushes and that is all. Where the
// medium is removable, LOEJ ejects and loads it.
func startStartStop(t *Task) bool {
	b := t.CDB[4]
	if b&powerField != 0 {
		return true
	}
	if b&loadEject != 0 && t.lu.has(removable) {
		t.lu.load(b&startBit != 0, t.nexus)
	}
	if b&(startBit|noFlush) != 0 {
		return true
	}
	t.request(block.Flush, 0, nil, 0)
	return false
}

func (u *LU) removalPrevented() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for n := range u.nexuses {
		if n.prevent {
			return true
		}
	}
	return false
}

// load loads or ejects the medium; the other initiators learn of a new one.
func (u *LU) load(in bool, by *Nexus) {
	if in && u.has(ejected) {
		u.attention(ascMediumChanged, by)
	}
	u.set(ejected, !in)
}

func startPreventAllow(t *Task) bool {
	t.lu.mu.Lock()
	defer t.lu.mu.Unlock()
	t.nexus.prevent = t.CDB[4]&1 != 0
	return true
}
