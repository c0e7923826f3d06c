package scsi

import (
	"encoding/binary"

	"pstorage/blockstore/block"
)

// Logical block provisioning thresholds (SBC-4, 4.7.3.7): one, which is reached when the store that the device takes its space from has no more than so
// much left.
const (
	// thresholdExponent: a threshold set, in which resources are counted, is 2^11 blocks.
	thresholdExponent = 11
	// thresholdShare: the threshold is at a tenth of the store's capacity unless initiators choose another.
	thresholdShare = 10
	// thresholdAt is where the one descriptor is in the mode page.
	thresholdAt = 16

	resourceAvailable = 0x01
	resourceUsed      = 0x02

	scopeUnit   = 1 // the resources are this logical unit's alone
	scopeShared = 2
)

// threshold is what MODE SELECT sets, and how it began.
type threshold struct {
	enabled bool
	count   uint32 // of threshold sets; at 0 it is never reached
}

// room is what an LU knows of the space of its device, and of whom it has told. Guarded by LU.mu.
type room struct {
	space    block.Space
	known    bool
	now      threshold
	standard threshold // its default: the count is found out with the first space told, and stays, as mode parameters may not change unasked
	reached  bool      // and told
}

// inSets counts threshold sets.
func (u *LU) inSets(bytes int64) uint32 {
	return uint32(min(u.inBlocks(max(bytes, 0))>>thresholdExponent, 1<<32-1))
}

// learnSpace takes what the device tells.
func (u *LU) learnSpace(s block.Space) {
	u.mu.Lock()
	defer u.mu.Unlock()
	r := &u.room
	if !r.known {
		untouched := r.now == r.standard
		r.standard.count = u.inSets(s.Capacity / thresholdShare)
		if untouched {
			r.now = r.standard
		}
	}
	r.space, r.known = s, true
	u.judgeRoom()
}

// judgeRoom tells every initiator when the threshold is reached. It can be reached again once there was more. Called with mu held.
func (u *LU) judgeRoom() {
	r := &u.room
	below := r.known && r.now.enabled && r.now.count > 0 && u.inSets(r.space.Available) <= r.now.count
	if below && !r.reached {
		u.attentionLocked(ascThreshold, nil)
	}
	r.reached = below
}

// setThreshold arms the threshold anew. Called with mu held.
func (u *LU) setThreshold(t threshold) {
	u.room.now, u.room.reached = t, false
	u.judgeRoom()
}

// thresholdPage draws the Logical Block Provisioning mode page, with a soft threshold that is armed decreasing.
func thresholdPage(t threshold) []byte {
	p := make([]byte, thresholdAt+8)
	p[0], p[1] = subpageFormat|pageInfoExc, subpageProvisioning
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)-4))
	p[thresholdAt] = bit(0x80, t.enabled)
	p[thresholdAt+1] = resourceAvailable
	binary.BigEndian.PutUint32(p[thresholdAt+4:], t.count)
	return p
}

// thresholdOf reads such a page.
func thresholdOf(p []byte) threshold {
	return threshold{enabled: p[thresholdAt]&0x80 != 0, count: binary.BigEndian.Uint32(p[thresholdAt+4:])}
}

// provisioningLog tells what is left and what is taken, in threshold sets; nothing while that is not known.
func (u *LU) provisioningLog() []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	b := []byte{logProvisioning, 0, 0, 0}
	if !u.room.known {
		return b
	}
	b = appendResource(b, resourceAvailable, u.inSets(u.room.space.Available), scopeShared)
	return appendResource(b, resourceUsed, u.inSets(u.room.space.Used), scopeUnit)
}

func appendResource(b []byte, resource byte, sets uint32, scope byte) []byte {
	b = append(b, 0, resource, 0x03, 8)
	b = binary.BigEndian.AppendUint32(b, sets)
	return append(b, scope, 0, 0, 0)
}

// attentionSense is what a unit attention says; that of the threshold, where in the mode page it is.
func attentionSense(c code) sense {
	return sense{key: keyUnitAttention, code: c, field: -1, hasInfo: c == ascThreshold, info: thresholdAt}
}
