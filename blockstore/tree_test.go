package blockstore

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
)

// treeModel is volumes and snapshots as plain bytes, beside those of a cluster.
type treeModel struct {
	t    *testing.T
	k    *cluster
	rand *rand.Rand
	c    *Client // of all volumes: what they stand over they share

	volumes []*modelVolume
	frozen  []*modelSnapshot
	made    int
}

type modelVolume struct {
	name string
	v    *Volume
	m    *fakeMeta
	data []byte
	own  int // snapshots of this state of it
}

type modelSnapshot struct {
	s    *fakeSnapshot
	of   *fakeMeta
	data []byte
}

const (
	treeSteps = 200
	treeSize  = 3<<20 + 5*block.SectorSize
)

// TestTreesOfVolumesBehaveLikeTheirModel does what comes to volumes that are cloned, switched and flattened, beside plain bytes.
func TestTreesOfVolumesBehaveLikeTheirModel(t *testing.T) {
	for seed := range uint64(6) {
		synctest.Test(t, func(t *testing.T) { runTree(t, seed) })
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func runTree(t *testing.T, seed uint64) {
	_, k := newTree(3)
	m := &treeModel{t: t, k: k, rand: rand.New(rand.NewPCG(seed, 77)), c: k.client(t)}
	for i, s := range k.servers {
		s.set(func() { s.delay = randomDelay(rand.New(rand.NewPCG(seed, uint64(i))), 2*time.Millisecond) })
	}
	m.add(nil, nil)
	for range treeSteps {
		if m.step(); t.Failed() {
			break
		}
	}
	m.checkAll()
	if err := m.c.Close(); err != nil {
		t.Error(err)
	}
	if n := len(m.c.parents.open); n > 0 {
		t.Errorf("%d snapshots are open still for volumes over them", n)
	}
	m.c = k.client(t) // everything as somebody else sees it
	for _, v := range m.volumes {
		m.open(v)
	}
	m.checkAll()
	if err := m.c.Close(); err != nil {
		t.Error(err)
	}
}

// add makes a volume, over a snapshot or none.
func (m *treeModel) add(over *modelSnapshot, instead *modelVolume) {
	v := instead
	if v == nil {
		m.made++
		v = &modelVolume{name: fmt.Sprint("/volume", m.made)}
		m.volumes = append(m.volumes, v)
	}
	size := uint64(testChunk) << m.rand.IntN(3)
	v.own = 0
	if over == nil {
		v.data = make([]byte, treeSize)
		v.m = m.k.tree.create(v.name, treeSize, size, nil)
	} else {
		v.data = slices.Clone(over.data)
		v.m = m.k.tree.create(v.name, 0, size, over.s)
	}
	m.open(v)
}

func (m *treeModel) open(v *modelVolume) {
	var err error
	if v.v, err = m.c.Open(context.Background(), v.name, OpenOptions{idleTicks: 2}); err != nil {
		m.t.Fatal(err)
	}
}

func (m *treeModel) close(v *modelVolume) {
	if err := v.v.Close(); err != nil {
		m.t.Error(err)
	}
}

func (m *treeModel) step() {
	v := m.volumes[m.rand.IntN(len(m.volumes))]
	switch n := m.rand.IntN(40); {
	case n < 14:
		m.change(v)
	case n < 24:
		m.read(v.v, v.data, v.name)
	case n < 28:
		m.snapshot(v)
	case n < 31 && len(m.frozen) > 0 && len(m.volumes) < 8:
		m.add(m.anySnapshot(), nil)
	case n < 33 && len(m.frozen) > 0:
		m.close(v)
		m.add(m.anySnapshot(), v)
	case n < 35 && v.own == 0:
		m.flatten(v)
	case n < 36:
		m.resize(v)
	case n < 37:
		m.close(v)
		m.open(v)
	case n < 38 && len(m.frozen) > 0:
		m.checkSnapshot(m.anySnapshot())
	case n < 39:
		m.extents(v.v, v.data, v.name)
	default:
		m.together(v)
	}
}

func (m *treeModel) anySnapshot() *modelSnapshot { return m.frozen[m.rand.IntN(len(m.frozen))] }

// somewhere is a range, often of whole blocks, often small.
func (m *treeModel) somewhere(v *modelVolume) (at, n int64) {
	unit, size := int64(block.SectorSize), int64(len(v.data))
	if m.rand.IntN(2) == 0 {
		unit = block.Size
	}
	at = m.rand.Int64N(size/unit) * unit
	n = min(size-at, (1+m.rand.Int64N(40))*unit)
	if m.rand.IntN(10) == 0 {
		n = min(size-at, 2*testChunk/unit*unit)
	}
	return at, n
}

// request makes one that changes data, and changes the model.
func (m *treeModel) request(v *modelVolume, at, n int64) *block.Request {
	data := v.data[at : at+n]
	switch m.rand.IntN(6) {
	case 0:
		clear(data)
		return &block.Request{Op: block.Discard, Offset: at, Length: n}
	case 1:
		clear(data)
		return &block.Request{Op: block.WriteZeroes, Offset: at, Length: n, Flags: block.FUA}
	case 2:
		n = min(n, block.MaxCompare)
		r := &block.Request{Op: block.CompareAndWrite, Offset: at, Length: n, Compare: slices.Clone(data[:n]), Data: blocktest.Bytes(m.rand.Uint64(), int(n))}
		copy(data, r.Data)
		return r
	}
	copy(data, blocktest.Bytes(m.rand.Uint64(), int(n)))
	return blocktest.Write(at, slices.Clone(data))
}

func (m *treeModel) change(v *modelVolume) {
	at, n := m.somewhere(v)
	r := m.request(v, at, n)
	if blocktest.Do(v.v, r); r.Err != nil {
		m.t.Errorf("%v of %d bytes at %d of %s: %v", r.Op, r.Length, r.Offset, v.name, r.Err)
	}
}

// together does several changes at once, of neighbours: parts of the same blocks.
func (m *treeModel) together(v *modelVolume) {
	at := m.rand.Int64N(int64(len(v.data))/block.Size-2)*block.Size + block.SectorSize
	var batch []*block.Request
	for range 6 {
		batch = append(batch, m.request(v, at, 3*block.SectorSize))
		at += 3 * block.SectorSize
	}
	blocktest.Do(v.v, batch...)
	for _, r := range batch {
		if r.Err != nil {
			m.t.Errorf("%v of %d bytes at %d of %s: %v", r.Op, r.Length, r.Offset, v.name, r.Err)
		}
	}
	m.read(v.v, v.data, v.name)
}

func (m *treeModel) read(d block.Device, want []byte, name string) {
	at := m.rand.Int64N(int64(len(want))/block.SectorSize) * block.SectorSize
	r := blocktest.Read(at, min(int64(len(want))-at, (1+m.rand.Int64N(2000))*block.SectorSize))
	blocktest.Do(d, r)
	m.compare(r, want, name)
}

func (m *treeModel) compare(r *block.Request, want []byte, name string) {
	m.t.Helper()
	if r.Err != nil {
		m.t.Errorf("read of %s: %v", name, r.Err)
		return
	}
	if want = want[r.Offset:][:r.Length]; !bytes.Equal(r.Data, want) {
		m.t.Errorf("%s differs from its model at %d of a read of %d bytes at %d", name, block.Mismatch(r.Data, want), r.Length, r.Offset)
	}
}

func (m *treeModel) snapshot(v *modelVolume) {
	if v.m.info.Flattening {
		return
	}
	s, err := m.k.tree.take(v.name)
	if err != nil {
		m.t.Error(err)
		return
	}
	v.own++
	m.frozen = append(m.frozen, &modelSnapshot{s, v.m, slices.Clone(v.data)})
}

// flatten has a volume flattened while it is written, and sometimes stopped, or closed, on the way.
func (m *treeModel) flatten(v *modelVolume) {
	if v.m.info.Over == nil {
		return
	}
	m.k.tree.order(v.m, false)
	m.change(v)
	m.read(v.v, v.data, v.name)
	if m.rand.IntN(3) == 0 {
		m.k.tree.order(v.m, true)
		m.read(v.v, v.data, v.name)
		time.Sleep(time.Second)
		return
	}
	if m.rand.IntN(3) == 0 {
		m.close(v)
		m.open(v)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if m.change(v); v.v.under.Load() == nil {
			break
		}
		if time.Now().After(end) {
			m.t.Fatalf("%s is not flattened", v.name)
		}
	}
	m.extents(v.v, v.data, v.name)
}

func (m *treeModel) resize(v *modelVolume) {
	size := len(v.data) + (1+m.rand.IntN(2000))*block.SectorSize
	if err := m.c.Resize(context.Background(), v.name, int64(size)); err != nil {
		m.t.Error(err)
	}
	v.data = append(v.data, make([]byte, size-len(v.data))...)
}

// extents checks that they cover everything, and that holes are zeros.
func (m *treeModel) extents(d block.Device, want []byte, name string) {
	list, err := d.Extents(context.Background(), 0, int64(len(want)), 1<<20)
	if err != nil {
		m.t.Errorf("extents of %s: %v", name, err)
		return
	}
	at := int64(0)
	for _, e := range list {
		if e.Offset != at || e.Length <= 0 {
			m.t.Errorf("%s: an extent begins at %d, expected at %d", name, e.Offset, at)
			return
		}
		if at += e.Length; e.Zero && !isZero(want[e.Offset:at]) {
			m.t.Errorf("%s: %d bytes at %d are said to be zeros", name, e.Length, e.Offset)
		}
		for b := e.Offset; b < at && !e.Zero; b += block.Size {
			if isZero(want[b:min(b+block.Size, at)]) {
				m.t.Errorf("%s: the block at %d is said to be data", name, b)
			}
		}
	}
	if at != int64(len(want)) {
		m.t.Errorf("%s: extents end at %d of %d", name, at, len(want))
	}
}

func (m *treeModel) checkSnapshot(s *modelSnapshot) {
	name := fmt.Sprintf("%x", s.s.id)
	d, err := m.c.OpenSnapshot(context.Background(), "/volume", name)
	if err != nil {
		m.t.Error(err)
		return
	}
	m.whole(d, s.data, "snapshot "+name)
	m.extents(d, s.data, "snapshot "+name)
	if err := d.Close(); err != nil {
		m.t.Error(err)
	}
}

func (m *treeModel) whole(d block.Device, want []byte, name string) {
	r := blocktest.Read(0, int64(len(want)))
	blocktest.Do(d, r)
	m.compare(r, want, name)
}

func (m *treeModel) checkAll() {
	for _, v := range m.volumes {
		m.whole(v.v, v.data, v.name)
		m.extents(v.v, v.data, v.name)
	}
	for _, s := range m.frozen {
		m.checkSnapshot(s)
	}
}
