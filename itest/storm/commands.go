package storm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"pstorage/itest/iscsi"
)

// tally counts what was added to a LUN's shared sector by COMPARE AND WRITE.
type tally struct{ done, unsure atomic.Int64 }

// Counts are of a whole run.
type Counts struct {
	Acknowledged, Unsure, Busy, Attentions atomic.Int64 // commands
	Managed, Resets                        atomic.Int64 // task management functions, and those that concern others
	Dropped, Cut                           atomic.Int64 // connections
	Slow, Garbage, Logins                  atomic.Int64
}

func (c *Counts) String() string {
	return fmt.Sprintf("%d commands acknowledged, %d aborted or cut off, %d busy, %d unit attentions; %d aborts, %d resets and clears; %d connections dropped, %d cut by the target; %d slow readers, %d bouts of garbage, %d other logins",
		c.Acknowledged.Load(), c.Unsure.Load(), c.Busy.Load(), c.Attentions.Load(), c.Managed.Load(), c.Resets.Load(), c.Dropped.Load(), c.Cut.Load(), c.Slow.Load(), c.Garbage.Load(), c.Logins.Load())
}

// send begins one more command.
func (u *user) send() error {
	c := &command{action: u.choose()}
	var cdb, out []byte
	switch lba := u.place(c); c.action {
	case reading:
		cdb, c.data = iscsi.Read16(lba, uint32(c.sectors)), make([]byte, c.sectors*sectorSize)
	case writing:
		c.version = u.region.next()
		cdb, out = iscsi.Write16(lba, uint32(c.sectors)), u.region.content(c.at, c.sectors, c.version)
	case unmapping:
		cdb, out = iscsi.Unmap(lba, uint32(c.sectors))
	case comparing:
		c.version = u.region.next()
		cdb = iscsi.CompareAndWrite(lba)
		out = append(u.region.content(c.at, 1, u.region.sectors[c.at].sure), u.region.content(c.at, 1, c.version)...)
	case counting:
		cdb, out = iscsi.CompareAndWrite(sharedSector), append(number(u.seen), number(u.seen+1)...)
	case looking:
		cdb, c.data = iscsi.Read16(sharedSector, 1), make([]byte, sectorSize)
	case asking:
		cdb = make([]byte, 6)
	}
	if c.action == counting || c.action == looking {
		u.counting = true
	} else {
		u.slot[c.slot] = true
	}
	tag, err := u.s.Command(u.region.lun, cdb, out, len(c.data))
	u.inFlight[tag] = c
	return err
}

// number is a sector with a number.
func number(n uint64) []byte {
	b := make([]byte, sectorSize)
	binary.BigEndian.PutUint64(b, n)
	return b
}

// choose takes an action, as often as it is useful.
func (u *user) choose() action {
	switch n := u.random.IntN(100); {
	case n < 45:
		return writing
	case n < 80:
		return reading
	case n < 86:
		return unmapping
	case n < 92:
		return comparing
	case n < 95 && !u.counting:
		return counting
	case n < 97 && !u.counting:
		return looking
	}
	return asking
}

// place chooses the sectors of a command, where none is in flight. Mostly they are few.
func (u *user) place(c *command) (lba uint64) {
	if c.action == counting || c.action == looking {
		return sharedSector
	}
	for c.slot = u.random.IntN(slots); u.slot[c.slot]; c.slot = (c.slot + 1) % slots {
	}
	longest := [...]int{8, 8, 8, 8, 128, slotSectors}[u.random.IntN(6)]
	c.sectors = 1 + u.random.IntN(longest)
	if c.action == comparing {
		c.sectors = 1
	}
	c.at = c.slot*slotSectors + u.random.IntN(slotSectors-c.sectors+1)
	if c.action == comparing && len(u.region.sectors[c.at].maybe) > 0 {
		c.action = reading // what is there is not known
	}
	return u.region.first + uint64(c.at)
}

// SCSI statuses and sense keys that come of being reset and of being many.
const (
	good           = 0x00
	checkCondition = 0x02
	busy           = 0x08
	setFull        = 0x28
	taskAborted    = 0x40

	unitAttention  = 0x06
	abortedCommand = 0x0b
	miscompare     = 0x0e
)

// finish takes the end of a command.
func (u *user) finish(tag uint32, c *command, status byte, sense []byte) error {
	key := byte(0)
	if len(sense) > 4 {
		key = sense[4] & 15
	}
	switch {
	case status == good:
		u.counts.Acknowledged.Add(1)
		u.end(tag, c)
		return u.acknowledge(c)
	case status == busy, status == setFull: // nothing was done
		u.counts.Busy.Add(1)
		u.end(tag, c)
	case status == checkCondition && key == unitAttention: // the same
		u.counts.Attentions.Add(1)
		u.end(tag, c)
	case status == checkCondition && key == miscompare && c.action == counting: // somebody else was first
		u.end(tag, c)
	case status == taskAborted, status == checkCondition && key == abortedCommand:
		u.lose(tag, c)
	default:
		return fmt.Errorf("action %d, sectors %d+%d: status %02x, sense % x", c.action, c.at, c.sectors, status, sense)
	}
	return nil
}

var errShared = errors.New("the shared sector has gone backwards")

// acknowledge takes what a command that was done says of the data.
func (u *user) acknowledge(c *command) error {
	switch c.action {
	case reading:
		return u.region.check(c.at, c.data)
	case writing, unmapping, comparing:
		u.region.acknowledged(c.at, c.sectors, c.version)
	case counting:
		u.shared.done.Add(1)
		u.seen++
	case looking:
		before := u.seen
		if u.seen = binary.BigEndian.Uint64(c.data); u.seen < before {
			return fmt.Errorf("%w: from %d to %d", errShared, before, u.seen)
		}
	}
	return nil
}
