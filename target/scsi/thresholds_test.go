package scsi

import (
	"encoding/binary"
	"testing"

	"pstorage/blockstore/block"
)

// thinMemory tells what it is made to.
type thinMemory struct {
	*block.Memory
	tell func(block.Space)
}

func (m *thinMemory) OnSpace(f func(block.Space)) (stop func()) {
	m.tell = f
	return func() { m.tell = nil }
}

const aSet = block.SectorSize << thresholdExponent

func newThinRig(t *testing.T) (*rig, *thinMemory) {
	dev := &thinMemory{Memory: block.NewMemory(testSize)}
	r := &rig{t: t, mem: dev.Memory, lu: NewLU(dev, block.VolumeInfo{Name: "v", ID: [16]byte{1}}, Options{})}
	t.Cleanup(r.lu.Close)
	r.Nexus = r.attach("iqn.test:a,i,0x000000000001")
	return r, dev
}

// left is a store of a thousand sets of which so many are left.
func left(sets int64) block.Space {
	return block.Space{Used: 7 * aSet, Available: sets * aSet, Capacity: 1000 * aSet}
}

var ready = []byte{opTestUnitReady, 0, 0, 0, 0, 0}

func wantReached(r *rig) {
	r.t.Helper()
	t := r.bad(keyUnitAttention, ascThreshold, ready, nil)
	if !t.sense.hasInfo || t.sense.info != thresholdAt {
		r.t.Errorf("the threshold is not named: %s", describeSense(t))
	}
}

func TestEveryInitiatorIsToldOnceWhenTheThresholdIsReached(t *testing.T) {
	r, dev := newThinRig(t)
	other := r.on(r.attach("iqn.test:b,i,0x000000000001"))
	r.good(ready, nil)
	dev.tell(left(101))
	r.good(ready, nil)
	for range 2 {
		dev.tell(left(100))
		wantReached(r)
		dev.tell(left(40))
		r.good(ready, nil)
		wantReached(other)
		other.good(ready, nil)
		dev.tell(left(101)) // it is armed again
		r.good(ready, nil)
	}
}

func TestInitiatorsThatComeWhileSpaceIsLowAreTold(t *testing.T) {
	r, dev := newThinRig(t)
	dev.tell(left(3))
	wantReached(r)
	late := r.on(r.attach("iqn.test:b,i,0x000000000001"))
	b := late.in([]byte{opRequestSense, 0, 0, 0, 18, 0}, 18)
	if b[2] != keyUnitAttention || code(binary.BigEndian.Uint16(b[12:])) != ascThreshold || b[0]&0x80 == 0 || b[6] != thresholdAt {
		t.Errorf("% x", b)
	}
	late.good(ready, nil)
	r.lu.Reset()
	r.bad(keyUnitAttention, ascReset, ready, nil)
	wantReached(r)
}

func thresholdNow(r *rig, control byte) []byte {
	r.t.Helper()
	b := r.in([]byte{opModeSense10, disableDescriptors, control<<6 | pageInfoExc, subpageProvisioning, 0, 0, 0, 0, 255, 0}, 255)
	if len(b) != 8+24 || b[8] != 0x5c || b[9] != 2 || b[11] != 20 {
		r.t.Fatalf("% x", b)
	}
	return b[8+thresholdAt:]
}

// selectThreshold chooses one with MODE SELECT(10).
func selectThreshold(enabled byte, count uint32) (cdb, list []byte) {
	list = make([]byte, 8+24)
	list[8], list[9], list[11] = 0x5c, 2, 20
	d := list[8+thresholdAt:]
	d[0], d[1] = enabled, resourceAvailable
	binary.BigEndian.PutUint32(d[4:], count)
	return []byte{opModeSelect10, 0x10, 0, 0, 0, 0, 0, 0, byte(len(list)), 0}, list
}

func TestInitiatorsChooseTheThreshold(t *testing.T) {
	r, dev := newThinRig(t)
	other := r.on(r.attach("iqn.test:b,i,0x000000000001"))
	dev.tell(left(500))
	if d := thresholdNow(r, currentValues); d[0] != 0x80 || d[1] != resourceAvailable || binary.BigEndian.Uint32(d[4:]) != 100 {
		t.Errorf("at first: % x", d)
	}
	if d := thresholdNow(r, changeableValues); d[0] != 0x80 || d[1] != 0 || binary.BigEndian.Uint32(d[4:]) != 1<<32-1 {
		t.Errorf("changeable: % x", d)
	}
	r.good(selectThreshold(0x80, 600))
	wantReached(r)
	other.bad(keyUnitAttention, ascModeChanged, ready, nil)
	wantReached(other)
	if d := thresholdNow(r, currentValues); binary.BigEndian.Uint32(d[4:]) != 600 {
		t.Errorf("chosen: % x", d)
	}
	if d := thresholdNow(r, defaultValues); binary.BigEndian.Uint32(d[4:]) != 100 {
		t.Errorf("default: % x", d)
	}
	r.good(selectThreshold(0, 600))
	other.bad(keyUnitAttention, ascModeChanged, ready, nil)
	dev.tell(left(1))
	r.good(ready, nil)
	other.good(ready, nil)
}

func TestWhatIsFixedOfTheThresholdCannotBeChosen(t *testing.T) {
	r, dev := newThinRig(t)
	dev.tell(left(500))
	for i, v := range map[int]byte{9: 3, 11: 21, 12: 1, 8 + thresholdAt: 0x81, 9 + thresholdAt: resourceUsed} {
		cdb, list := selectThreshold(0x80, 600)
		list[i] = v
		r.bad(keyIllegal, ascInvalidFieldParam, cdb, list)
	}
	cdb, list := selectThreshold(0x80, 600)
	cdb[8]--
	r.bad(keyIllegal, ascParameterListLength, cdb, list[:len(list)-1])
	cdb[8] = 10
	r.bad(keyIllegal, ascParameterListLength, cdb, list[:10])
	r.good(ready, nil)
}

func TestTheThresholdIsAmongPagesWithSubpages(t *testing.T) {
	r, _ := newThinRig(t)
	sense := func(page, sub byte) []byte {
		return r.in([]byte{opModeSense6, disableDescriptors, page, sub, 255, 0}, 255)
	}
	without, with := len(sense(pageAll, 0)), len(sense(pageAll, subpageAll))
	if with != without+24 || len(sense(pageInfoExc, subpageAll)) != 4+12+24 || len(sense(pageInfoExc, 0)) != 4+12 {
		t.Errorf("%d bytes of pages, %d with subpages", without, with)
	}
	r.bad(keyIllegal, ascInvalidFieldCDB, []byte{opModeSense6, 0, pageAll, subpageProvisioning, 255, 0}, nil)
	r.bad(keyIllegal, ascInvalidFieldCDB, []byte{opModeSense6, 0, pageControl, subpageProvisioning, 255, 0}, nil)
}

func TestTheLogTellsWhatIsLeftAndWhatIsTaken(t *testing.T) {
	r, dev := newThinRig(t)
	ask := []byte{opLogSense, 0, 0x40 | logProvisioning, 0, 0, 0, 0, 1, 0, 0}
	if b := r.in(ask, 256); len(b) != 4 {
		t.Errorf("before anything is known: % x", b)
	}
	dev.tell(left(500))
	b := r.in(ask, 256)
	if len(b) != 4+2*12 || b[5] != resourceAvailable || binary.BigEndian.Uint32(b[8:]) != 500 || b[12] != scopeShared ||
		b[17] != resourceUsed || binary.BigEndian.Uint32(b[20:]) != 7 || b[24] != scopeUnit {
		t.Errorf("% x", b)
	}
	if b := r.in([]byte{opInquiry, 1, vpdProvisioning, 0, 64, 0}, 64); b[4] != thresholdExponent {
		t.Errorf("% x", b)
	}
}

func TestADeviceThatKnowsNoSpaceHasNoThreshold(t *testing.T) {
	r := newRig(t, Options{})
	r.bad(keyIllegal, ascInvalidFieldCDB, []byte{opModeSense6, 0, pageInfoExc, subpageProvisioning, 255, 0}, nil)
	r.bad(keyIllegal, ascInvalidFieldCDB, []byte{opLogSense, 0, 0x40 | logProvisioning, 0, 0, 0, 0, 1, 0, 0}, nil)
	cdb, list := selectThreshold(0x80, 600)
	r.bad(keyIllegal, ascInvalidFieldParam, cdb, list)
	if b := r.in([]byte{opInquiry, 1, vpdProvisioning, 0, 64, 0}, 64); b[4] != 0 {
		t.Errorf("% x", b)
	}
}
