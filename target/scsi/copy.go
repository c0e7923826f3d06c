package scsi

import (
	"bytes"
	"encoding/binary"
	"strings"
	"sync"

	"pstorage/blockstore/block"
)

// Limits of EXTENDED COPY, reported by RECEIVE COPY RESULTS.
const (
	maxCopyTargets  = 8
	maxCopySegments = 64
	maxCopyList     = 4096     // bytes of all descriptors
	maxCopySegment  = 64 << 20 // bytes that one segment copies
	copyPiece       = 1 << 20  // bytes that are read and written at a time
	// rememberedCopies is how many finished copies an initiator can ask about.
	rememberedCopies = 16
)

// Peers finds logical units that EXTENDED COPY may name.
type Peers interface {
	// EachPeer calls f on the logical units that are open until it returns false.
	EachPeer(f func(*LU) bool)
}

func copyCommands() []command {
	list := []command{
		{op: opExtendedCopy, action: saCopyLID1, name: "EXTENDED COPY(LID1)", class: WriteData, traits: medium | writes | mayBlock,
			usage:   []byte{opExtendedCopy, saCopyLID1, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x07},
			prepare: prepareCopy, start: startCopy, step: stepCopy},
	}
	for _, a := range [...]struct {
		action int
		name   string
		usage  byte // of the list identifier
	}{{saCopyStatus, "COPY STATUS(LID1)", 0xff}, {saCopyParameters, "OPERATING PARAMETERS", 0}, {saCopyFailures, "FAILED SEGMENT DETAILS(LID1)", 0xff}} {
		list = append(list, command{op: opCopyResults, action: a.action, name: "RECEIVE COPY RESULTS, " + a.name, traits: persistFree,
			usage:   []byte{opCopyResults, byte(a.action), a.usage, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0x07},
			prepare: func(t *Task) { t.wantIn(int(min(t.u32(10), maxReply))) }, start: startCopyResults})
	}
	return list
}

// copying is an EXTENDED COPY under way. Its parameter list (SPC-4, 6.4.2):
//
//	0       list identifier
//	1       list identifier usage, in bits 3 and 4
//	2..3    length of the CSCD descriptors
//	8..11   length of the segment descriptors
//	12..15  length of inline data, of which there is none
//	16..    descriptors
type copying struct {
	record   *copyRecord
	ends     []*Nexus // where a CSCD descriptor leads; nil: nowhere
	segments []segment
	at       int   // segment
	done     int64 // bytes of it
	buf      []byte
}

// segment copies bytes between two devices.
type segment struct {
	from, to       *Nexus
	source, target int64 // offsets
	length         int64
}

const (
	copyHeader   = 16
	cscdSize     = 32
	cscdByName   = 0xe4
	segmentBlock = 0x02
	segmentByte  = 0x0a
	noListID     = 3 // list identifier usage
)

func prepareCopy(t *Task) {
	n := t.u32(10)
	switch {
	case n == 0:
	case n < copyHeader, n > copyHeader+maxCopyList:
		t.fail(keyIllegal, ascParameterListLength)
	default:
		t.wantOut(int(n))
		t.BufLen = t.lu.roundUp(t.OutLen) + copyPiece
	}
}

func startCopy(t *Task) bool {
	if t.OutLen == 0 {
		return true
	}
	c := &copying{buf: t.Buf[t.BufLen-copyPiece:]}
	if !t.parseCopy(c) {
		return true
	}
	t.copy = c
	c.record = t.nexus.copies.begin(t.Buf[0], t.Buf[1]>>3&3 != noListID)
	if t.copyNext() {
		return true
	}
	t.lu.continuing.add(t)
	return false
}

// parseCopy checks everything before anything is copied.
func (t *Task) parseCopy(c *copying) bool {
	list := t.Buf[:t.OutLen]
	targets, segments := int64(binary.BigEndian.Uint16(list[2:])), int64(binary.BigEndian.Uint32(list[8:]))
	inline := binary.BigEndian.Uint32(list[12:])
	switch {
	case inline != 0:
		t.badParam(12)
	case copyHeader+targets+segments > int64(len(list)), targets+segments > maxCopyList, targets%cscdSize != 0:
		t.fail(keyIllegal, ascParameterListLength)
	case targets/cscdSize > maxCopyTargets:
		t.fail(keyIllegal, ascManyTargets)
	default:
		t.parseTargets(c, list[copyHeader:copyHeader+targets])
		t.parseSegments(c, list[copyHeader+targets:copyHeader+targets+segments])
	}
	return !t.failed()
}

// parseTargets finds what the CSCD descriptors name: the designator of a logical unit that the same initiator is logged in to.
//
//	0      type
//	4      code set
//	5      association and type of the designator
//	7      its length
//	8..27  designator
//	29..31 block length
func (t *Task) parseTargets(c *copying, list []byte) {
	for ; len(list) > 0; list = list[cscdSize:] {
		d := list[:cscdSize]
		if d[0] != cscdByName {
			t.fail(keyIllegal, ascTargetType)
			return
		}
		n := int(d[7])
		if n > 20 || d[5]&0x30 != 0 {
			t.badParam(t.OutLen - len(list))
			return
		}
		c.ends = append(c.ends, t.nexus.reach(d[5]&0x0f, d[8:8+n]))
	}
}

// parseSegments checks the segment descriptors.
//
//	0      type
//	1      bit 1: the number of blocks counts those of the destination
//	2..3   length of what follows
//	4..5   index of the source
//	6..7   of the destination
//	10..11 number of blocks; 8..11 number of bytes
//	12..19 first block of the source
//	20..27 of the destination
//	28..31 bytes to be added to each, where bytes are counted
func (t *Task) parseSegments(c *copying, list []byte) {
	for len(list) > 0 && !t.failed() {
		size := map[byte]int{segmentBlock: 28, segmentByte: 32}[list[0]]
		switch {
		case size == 0:
			t.fail(keyIllegal, ascSegmentType)
		case len(list) < size, int(binary.BigEndian.Uint16(list[2:])) != size-4:
			t.fail(keyIllegal, ascParameterListLength)
		case len(c.segments) == maxCopySegments:
			t.fail(keyIllegal, ascManySegments)
		default:
			c.segments = append(c.segments, t.parseSegment(c, list[:size]))
			list = list[size:]
		}
	}
}

func (t *Task) parseSegment(c *copying, d []byte) (s segment) {
	end := func(i uint16) *Nexus {
		if int(i) < len(c.ends) {
			return c.ends[i]
		}
		return nil
	}
	s.from, s.to = end(binary.BigEndian.Uint16(d[4:])), end(binary.BigEndian.Uint16(d[6:]))
	if s.from == nil || s.to == nil {
		t.fail(keyCopyAborted, ascUnreachable)
		return s
	}
	from, to := s.from.lu, s.to.lu
	source, target := binary.BigEndian.Uint64(d[12:]), binary.BigEndian.Uint64(d[20:])
	if source > from.capacity() || target > to.capacity() {
		t.fail(keyCopyAborted, noSense)
		return s
	}
	s.source, s.target = from.inBytes(source), to.inBytes(target)
	if d[0] == segmentByte {
		s.length = int64(binary.BigEndian.Uint32(d[8:]))
		s.source += int64(binary.BigEndian.Uint16(d[28:]))
		s.target += int64(binary.BigEndian.Uint16(d[30:]))
	} else if counts := from; true {
		if d[1]&2 != 0 {
			counts = to
		}
		s.length = counts.inBytes(uint64(binary.BigEndian.Uint16(d[10:])))
	}
	t.checkSegment(s)
	return s
}

func (t *Task) checkSegment(s segment) {
	from, to := s.from.lu, s.to.lu
	switch {
	case s.length > maxCopySegment, (s.source|s.target|s.length)%block.SectorSize != 0:
		t.badParam(8)
	case s.source+s.length > from.inBytes(from.capacity()), s.target+s.length > to.inBytes(to.capacity()):
		t.fail(keyCopyAborted, noSense)
	}
}

// reach returns the nexus of the same initiator to the logical unit of a designator.
func (n *Nexus) reach(kind byte, designator []byte) (found *Nexus) {
	if n.lu.named(kind, designator) {
		return n
	}
	if n.lu.peers == nil {
		return nil
	}
	n.lu.peers.EachPeer(func(u *LU) bool {
		if u.named(kind, designator) {
			found = u.nexusOf(n.port.Initiator)
		}
		return found == nil
	})
	return found
}

func (u *LU) named(kind byte, designator []byte) bool {
	switch kind {
	case typeNAA:
		return bytes.Equal(designator, u.naa())
	case typeT10: // one that is cut to what fits
		full := []byte(vendor + u.serial())
		return len(designator) == 20 && bytes.HasPrefix(full, designator) || bytes.Equal(designator, full)
	}
	return false
}

// nexusOf returns a nexus of an initiator, through whatever port.
func (u *LU) nexusOf(port string) *Nexus {
	name, _, _ := strings.Cut(port, ",i,")
	u.mu.Lock()
	defer u.mu.Unlock()
	for n := range u.nexuses {
		if other, _, _ := strings.Cut(n.port.Initiator, ",i,"); other == name {
			return n
		}
	}
	return nil
}

// may reports whether the nexus may do to its logical unit what a command with those traits does; else the copy has failed.
func (n *Nexus) may(t *Task, tr traits) bool {
	probe := Task{nexus: n, lu: n.lu}
	ok := n.check(&probe, &command{op: opExtendedCopy, action: -1, traits: tr | anyTime})
	if !ok {
		t.Status, t.sense = probe.Status, probe.sense
	}
	return ok
}

// copyNext makes the next request. It returns true when everything is copied, or the copy has failed.
func (t *Task) copyNext() bool {
	c := t.copy
	for c.at < len(c.segments) && c.done == c.segments[c.at].length {
		c.at, c.done = c.at+1, 0
		c.record.segment()
	}
	if c.at == len(c.segments) {
		c.record.end(false)
		return true
	}
	s := &c.segments[c.at]
	if c.done == 0 && !(s.from.may(t, medium|reserveRead) && s.to.may(t, medium|writes) && t.enter(s.to.lu)) {
		c.record.end(true)
		return true
	}
	n := min(copyPiece, s.length-c.done)
	t.stage, t.peer = stageRead, s.from.lu
	t.request(block.Read, s.source+c.done, c.buf[:n], n)
	return false
}

func stepCopy(t *Task) bool {
	c := t.copy
	if t.Req.Err != nil {
		t.deviceError()
		c.record.end(true)
		return true
	}
	n := t.Req.Length
	if t.stage == stageWrite {
		c.done += n
		c.record.bytes(n)
		return t.copyNext()
	}
	s := &c.segments[c.at]
	t.stage, t.peer = stageWrite, s.to.lu
	if data := c.buf[:n]; allZero(data) {
		t.request(block.WriteZeroes, s.target+c.done, nil, n)
	} else {
		t.request(block.Write, s.target+c.done, data, n)
	}
	if s.to.lu.has(writeThrough) {
		t.Req.Flags |= block.FUA
	}
	return false
}

// copies are an initiator's EXTENDED COPY commands that have list identifiers.
type copies struct {
	mu   sync.Mutex
	list []*copyRecord
}

// copyRecord tells how far a copy has come.
type copyRecord struct {
	copies   *copies
	id       byte
	ended    bool
	failed   bool
	segments int
	copied   int64
}

// begin remembers a copy, in the place of an older one with the same identifier.
func (c *copies) begin(id byte, named bool) *copyRecord {
	r := &copyRecord{copies: c, id: id}
	if !named {
		return r
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, old := range c.list {
		if old.id == id {
			c.list = append(c.list[:i], c.list[i+1:]...)
			break
		}
	}
	if len(c.list) == rememberedCopies {
		c.list = c.list[1:]
	}
	c.list = append(c.list, r)
	return r
}

func (r *copyRecord) change(f func()) {
	r.copies.mu.Lock()
	defer r.copies.mu.Unlock()
	f()
}

func (r *copyRecord) segment()        { r.change(func() { r.segments++ }) }
func (r *copyRecord) bytes(n int64)   { r.change(func() { r.copied += n }) }
func (r *copyRecord) end(failed bool) { r.change(func() { r.ended, r.failed = true, failed }) }

// find returns what is known of a copy.
func (c *copies) find(id byte) (r copyRecord, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range c.list {
		if x.id == id {
			return *x, true
		}
	}
	return r, false
}
