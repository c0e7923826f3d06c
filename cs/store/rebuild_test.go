package store

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

// rebuilt is what a rebuild's target is prepared as.
func rebuilt(id chunk.ID, version uint64, layers ...uint32) Preparation {
	return Preparation{ID: id, Blocks: testBlocks, Layers: layers, Epoch: 1, Version: version, State: Syncing}
}

func atVersion(v uint64) Access { return Access{Epoch: 1, Version: v, Layer: 1} }

// pullAll does what a puller does: compare the codes of a layer, fetch what differs, store it. between is called after the
// comparison, fetched after the source was read.
func pullAll(t fataler, from, to *Store, id chunk.ID, version, fromVersion uint64, layer uint32, between, fetched func()) {
	t.Helper()
	const size = testBlocks * bs
	have, want := make([]uint32, testBlocks), make([]uint32, testBlocks)
	peer := Access{Version: fromVersion, Layer: layer, Peer: true}
	must(t, from.Table(id, peer, 0, size, want, true))
	peer.Version = version
	must(t, to.Table(id, peer, 0, size, have, true))
	between()
	peer.Version = fromVersion
	for b := range uint32(testBlocks) {
		if have[b] == want[b] {
			continue
		}
		codes := make([]uint32, 1)
		data, err := from.ReadLayer(id, peer, b*bs, bs, codes, nil)
		must(t, err)
		fetched()
		_, err = to.Pull(id, version, layer, 0, b*bs, codes, data)
		must(t, err)
	}
}

func nothing() {}

func wantEqual(t fataler, a, b *Store, id chunk.ID, acc Access) {
	t.Helper()
	want, err := readAll(a, id, acc, 0, testBlocks*bs)
	must(t, err)
	wantBytes(t, b, id, acc, 0, want)
}

// sourceAndTarget are two stores with the same chunk, the second one dropped and stale.
func sourceAndTarget(t *testing.T) (from, to *Store, disk *disk.Mem) {
	from, _ = memStore(t, idA)
	to, m := memStore(t, idA)
	for _, s := range []*Store{from, to} {
		must(t, write(s, idA, access, 0, pattern(1, 8*bs)))
	}
	must(t, from.Raise(7, 1, []ChunkVersion{{0, 2}}))
	must(t, to.Demote([]chunk.ID{idA}))
	return from, to, m
}

func TestStaleReplicaRefusesEverything(t *testing.T) { bothWays(t, testStaleReplicaRefusesEverything) }

func testStaleReplicaRefusesEverything(t *testing.T) {
	_, to, m := sourceAndTarget(t)
	check := func(s *Store) {
		t.Helper()
		_, err := readAll(s, idA, access, 0, bs)
		wantErr(t, err, ErrStaleReplica)
		wantErr(t, write(s, idA, access, 0, pattern(1, bs)), ErrStaleReplica)
		wantErr(t, s.Raise(7, 1, []ChunkVersion{{0, 5}}), ErrStaleReplica)
		wantErr(t, s.Promote(idA, 1), ErrStaleReplica)
		wantErr(t, s.Absolve(idA, 5, 0, nil), ErrStaleReplica)
		_, err = s.Pull(idA, 1, 1, 0, 0, []uint32{0}, nil)
		wantErr(t, err, ErrStaleReplica)
	}
	check(to)
	m.Restart(false)
	again := opened(t, m, "cs", Options{})
	defer again.Close()
	check(again)
}

func TestReplicaOnABaseBecomesItsSource(t *testing.T) {
	bothWays(t, testReplicaOnABaseBecomesItsSource)
}

func testReplicaOnABaseBecomesItsSource(t *testing.T) {
	from, to, _ := sourceAndTarget(t)
	must(t, write(from, idA, atVersion(2), 2*bs, pattern(2, 3*bs)))
	must(t, from.Zero(idA, atVersion(2), 6*bs, bs, false))
	must(t, errors.Join(to.Prepare([]Preparation{rebuilt(idA, 3, 1)})...))
	must(t, from.Raise(7, 1, []ChunkVersion{{0, 3}}))
	_, err := readAll(to, idA, atVersion(3), 0, bs)
	wantErr(t, err, ErrStaleReplica) // not a source yet
	before := to.space.used.Load()
	pullAll(t, from, to, idA, 3, 3, 1, nothing, nothing)
	if moved := before - to.space.used.Load(); moved != bs {
		t.Errorf("the rebuild freed %d bytes, want %d", moved, bs)
	}
	must(t, to.SyncReplica(idA, 3))
	must(t, to.Promote(idA, 3))
	must(t, to.Promote(idA, 3))
	wantEqual(t, from, to, idA, atVersion(3))
	if open, err := to.Fence(7, 1); err != nil || len(open) != 1 {
		t.Fatalf("after Promote the open chunks are %v, %v", open, err)
	}
}

// The base has what the source has, written by a process that was killed before it synced. The rebuild need not pull it, but must sync it.
func TestWhatARebuildFindsInItsBaseIsDurable(t *testing.T) {
	for seed := range uint64(10) { // the power cut takes each unsynced page with some probability
		from, _ := memStore(t, idA)
		m := disk.NewMem(seed)
		created(t, m, "cs")
		killed := opened(t, m, "cs", Options{})
		prepared(t, killed, idA)
		for _, s := range []*Store{from, killed} {
			must(t, write(s, idA, access, 0, pattern(1, 8*bs)))
		}
		must(t, from.Raise(7, 1, []ChunkVersion{{0, 2}}))
		m.Restart(false)
		to := opened(t, m, "cs", Options{})
		must(t, errors.Join(to.Prepare([]Preparation{rebuilt(idA, 2, 1)})...))
		pullAll(t, from, to, idA, 2, 2, 1, nothing, nothing)
		must(t, to.SyncReplica(idA, 2))
		must(t, to.Promote(idA, 2))
		must(t, to.Flush(7, 1))
		m.Restart(true)
		again := opened(t, m, "cs", Options{})
		must(t, again.Absolve(idA, 2, 0, func(uint32, uint32) []byte { return nil }))
		wantEqual(t, from, again, idA, atVersion(2))
		must(t, again.Close())
	}
}

func TestPullNeverOverwritesWhatTheWriterWrote(t *testing.T) {
	bothWays(t, testPullNeverOverwritesWhatTheWriterWrote)
}

func testPullNeverOverwritesWhatTheWriterWrote(t *testing.T) {
	from, to, _ := sourceAndTarget(t)
	must(t, errors.Join(to.Prepare([]Preparation{rebuilt(idA, 3, 1)})...))
	must(t, from.Raise(7, 1, []ChunkVersion{{0, 3}}))
	codes := sumsOf(idA, 0, pattern(9, 8*bs))
	fresh := pattern(5, 4*bs)
	must(t, write(to, idA, atVersion(3), 2*bs, fresh[:2*bs])) // whole blocks
	must(t, to.Zero(idA, atVersion(3), 4*bs, bs, false))
	must(t, to.WriteAtomic(idA, atVersion(3), 5*bs, sumsOf(idA, 5*bs, fresh[2*bs:3*bs]), fresh[2*bs:3*bs]))
	n, err := to.Pull(idA, 3, 1, 0, 0, codes, pattern(9, 8*bs))
	must(t, err)
	if n != 4*bs {
		t.Errorf("the pull wrote %d bytes, want those of the 4 blocks that were not written", n)
	}
	must(t, to.Promote(idA, 3))
	want := pattern(9, 8*bs)
	copy(want[2*bs:], fresh[:2*bs])
	clear(want[4*bs : 5*bs])
	copy(want[5*bs:], fresh[2*bs:3*bs])
	wantBytes(t, to, idA, atVersion(3), 0, want)
}

func TestPartWrittenDuringARebuildLandsOnTheSourcesBlock(t *testing.T) {
	bothWays(t, testPartWrittenDuringARebuildLandsOnTheSourcesBlock)
}

func testPartWrittenDuringARebuildLandsOnTheSourcesBlock(t *testing.T) {
	part := pattern(7, 512)
	for name, when := range map[string]int{"before the comparison": 0, "after it": 1, "while a block is on its way": 2, "after the pull": 3} {
		for _, block := range []uint32{0, 2, 100} { // equal to the source's, other than it, absent from both
			from, to, _ := sourceAndTarget(t)
			must(t, write(from, idA, atVersion(2), 2*bs, pattern(2, 3*bs)))
			must(t, errors.Join(to.Prepare([]Preparation{rebuilt(idA, 3, 1)})...))
			must(t, from.Raise(7, 1, []ChunkVersion{{0, 3}}))
			did := false
			at := func(now int) func() {
				return func() {
					if when == now && !did {
						did = true
						must(t, write(from, idA, atVersion(3), block*bs+512, part))
						must(t, write(to, idA, atVersion(3), block*bs+512, part))
					}
				}
			}
			at(0)()
			pullAll(t, from, to, idA, 3, 3, 1, at(1), at(2))
			at(3)()
			must(t, to.Promote(idA, 3))
			want, err := readAll(from, idA, atVersion(3), 0, testBlocks*bs)
			must(t, err)
			got, err := readAll(to, idA, atVersion(3), 0, testBlocks*bs)
			must(t, err)
			if string(got) != string(want) {
				t.Errorf("part of block %d written %s: the replicas differ", block, name)
			}
			if n := to.kept.Load(); n != 0 {
				t.Errorf("%d blocks are still kept", n)
			}
		}
	}
}

func TestOldDataUnderTheSourcesSumIsNotKept(t *testing.T) {
	bothWays(t, testOldDataUnderTheSourcesSumIsNotKept)
}

func testOldDataUnderTheSourcesSumIsNotKept(t *testing.T) {
	from, to, m := sourceAndTarget(t)
	// A power cut kept the page of the table, not that of the data: block 3 has the code of what the source has.
	now := pattern(3, bs)
	must(t, write(from, idA, atVersion(2), 3*bs, now))
	l := to.lookup(idA).top()
	l.setCode(3, chunk.BlockSum(idA, 3, now))
	must(t, to.writeTable(l, 3, 1))
	m.Restart(false) // the chunk was open: it is suspect
	to = opened(t, m, "cs", Options{})
	defer to.Close()
	if got := inventory(to)[idA].Suspect; got != ProcessDied {
		t.Fatalf("the replica is %s", got)
	}
	must(t, errors.Join(to.Prepare([]Preparation{rebuilt(idA, 3, 1)})...))
	must(t, from.Raise(7, 1, []ChunkVersion{{0, 3}}))
	// Without a comparison since, the block is not known to be the source's.
	wantErr(t, to.Promote(idA, 3), ErrCorrupt{Block: 3})
	wantErr(t, to.Promote(idA, 3), ErrCorrupt{Block: 3})
	pullAll(t, from, to, idA, 3, 3, 1, nothing, nothing)
	must(t, to.Promote(idA, 3))
	wantEqual(t, from, to, idA, atVersion(3))
}

func TestComparisonSeesTornBlocksOfADoubtfulBase(t *testing.T) {
	bothWays(t, testComparisonSeesTornBlocksOfADoubtfulBase)
}

func testComparisonSeesTornBlocksOfADoubtfulBase(t *testing.T) {
	from, to, m := sourceAndTarget(t)
	l := to.lookup(idA).top()
	l.setCode(3, 12345)
	must(t, to.writeTable(l, 3, 1))
	m.Restart(false)
	to = opened(t, m, "cs", Options{})
	defer to.Close()
	must(t, errors.Join(to.Prepare([]Preparation{rebuilt(idA, 3, 1)})...))
	must(t, from.Raise(7, 1, []ChunkVersion{{0, 3}}))
	codes := make([]uint32, 8)
	must(t, to.Table(idA, Access{Version: 3, Layer: 1, Peer: true}, 0, 8*bs, codes, true))
	want := sumsOf(idA, 0, pattern(1, 8*bs))
	want[3] = chunk.Absent
	if [8]uint32(codes) != [8]uint32(want) {
		t.Fatalf("codes %x, want %x", codes, want)
	}
	pullAll(t, from, to, idA, 3, 3, 1, nothing, nothing)
	must(t, to.Promote(idA, 3))
	wantEqual(t, from, to, idA, atVersion(3))
}

func TestSuspectBaseStaysDoubtfulUntilPromoted(t *testing.T) {
	bothWays(t, testSuspectBaseStaysDoubtfulUntilPromoted)
}

func testSuspectBaseStaysDoubtfulUntilPromoted(t *testing.T) {
	_, _, m := sourceAndTarget(t)
	m.Restart(false)
	to := opened(t, m, "cs", Options{})
	must(t, errors.Join(to.Prepare([]Preparation{rebuilt(idA, 3, 1)})...))
	must(t, to.Demote([]chunk.ID{idA})) // the rebuild ended half way
	must(t, to.Close())
	to = opened(t, m, "cs", Options{})
	defer to.Close()
	must(t, errors.Join(to.Prepare([]Preparation{rebuilt(idA, 5, 1)})...))
	if r := to.lookup(idA); !r.rebuild.isDoubtful() {
		t.Error("the base is trusted after a second Prepare")
	}
	must(t, to.Promote(idA, 5))
	must(t, to.Close())
	to = opened(t, m, "cs", Options{})
	defer to.Close()
	if got := inventory(to)[idA]; got.Suspect != Sound || got.State != InSync {
		t.Errorf("after Promote and a clean restart it is %+v", got)
	}
}

func TestRestartEndsARebuild(t *testing.T) { bothWays(t, testRestartEndsARebuild) }

func testRestartEndsARebuild(t *testing.T) {
	for _, pulled := range []bool{false, true} {
		from, to, m := sourceAndTarget(t)
		must(t, errors.Join(to.Prepare([]Preparation{rebuilt(idA, 3, 1)})...))
		must(t, from.Raise(7, 1, []ChunkVersion{{0, 3}}))
		pullAll(t, from, to, idA, 3, 3, 1, nothing, nothing)
		if pulled {
			must(t, to.SyncReplica(idA, 3))
		}
		must(t, to.Close())
		to = opened(t, m, "cs", Options{})
		wantErr(t, write(to, idA, atVersion(3), 0, pattern(1, bs)), ErrStaleReplica)
		_, err := to.Pull(idA, 3, 1, 0, 0, []uint32{0}, nil)
		wantErr(t, err, ErrStaleReplica)
		err = to.Promote(idA, 3)
		if pulled {
			must(t, err) // the MDS had committed it
			wantEqual(t, from, to, idA, atVersion(3))
		} else {
			wantErr(t, err, ErrStaleReplica)
		}
		must(t, to.Close())
	}
}

func TestRebuildTakesOnlyItsOwnVersion(t *testing.T) { bothWays(t, testRebuildTakesOnlyItsOwnVersion) }

func testRebuildTakesOnlyItsOwnVersion(t *testing.T) {
	_, to, _ := sourceAndTarget(t)
	must(t, errors.Join(to.Prepare([]Preparation{rebuilt(idA, 3, 1)})...))
	_, err := to.Pull(idA, 2, 1, 0, 0, []uint32{0}, nil)
	wantErr(t, err, ErrStaleVersion{Have: 3})
	wantErr(t, to.Promote(idA, 4), ErrStaleVersion{Have: 3})
	wantErr(t, write(to, idA, atVersion(2), 0, pattern(1, bs)), ErrStaleVersion{Have: 3})
	wantErr(t, errors.Join(to.Prepare([]Preparation{rebuilt(idA, 2, 1)})...), ErrStaleVersion{Have: 3})
}

func TestPrepareAgainDoesNoHarm(t *testing.T) { bothWays(t, testPrepareAgainDoesNoHarm) }

func testPrepareAgainDoesNoHarm(t *testing.T) {
	s, _ := memStore(t, idA)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	prepared(t, s, idA)
	wantBytes(t, s, idA, access, 0, pattern(1, bs))

	_, to, _ := sourceAndTarget(t)
	again := []Preparation{rebuilt(idA, 3, 1)}
	must(t, errors.Join(to.Prepare(again)...))
	must(t, write(to, idA, atVersion(3), 0, pattern(5, bs)))
	must(t, errors.Join(to.Prepare(again)...))
	old := pattern(1, bs)
	if n, err := to.Pull(idA, 3, 1, 0, 0, sumsOf(idA, 0, old), old); n != 0 || err != nil {
		t.Fatalf("after a second Prepare a pull overwrites the writer's block: %d, %v", n, err)
	}
}

func TestLayersTheFileHasNoMoreAreAPartOfTheNext(t *testing.T) {
	bothWays(t, testLayersTheFileHasNoMoreAreAPartOfTheNext)
}

func testLayersTheFileHasNoMoreAreAPartOfTheNext(t *testing.T) {
	s, m := memStore(t, idA)
	up := access
	for up.Layer = range uint32(4) {
		if up.Layer > 0 {
			must(t, write(s, idA, up, up.Layer*bs, pattern(uint64(up.Layer), bs)))
		}
	}
	must(t, s.Demote([]chunk.ID{idA}))
	must(t, errors.Join(s.Prepare([]Preparation{rebuilt(idA, 2, 1, 3)})...))
	must(t, s.Promote(idA, 2))
	top := Access{Epoch: 1, Version: 2, Layer: 3}
	all := slices.Concat(pattern(1, bs), pattern(2, bs), pattern(3, bs))
	wantBytes(t, s, idA, top, bs, all)
	must(t, s.Fold(idA, freely))
	wantBytes(t, s, idA, top, bs, all)
	if got := s.lookup(idA).record().layers; !slices.Equal(got, []uint32{1, 3}) {
		t.Errorf("the replica has layers %v", got)
	}
	must(t, s.Demote([]chunk.ID{idA}))
	must(t, errors.Join(s.Prepare([]Preparation{rebuilt(idA, 3, 1)})...))
	if _, err := m.Allocated(s.layerName(idA, 3)); err == nil {
		t.Error("a layer above those that the file has is still there")
	}
}

func TestMalformedPreparationsAreRefusedOneByOne(t *testing.T) {
	bothWays(t, testMalformedPreparationsAreRefusedOneByOne)
}

func testMalformedPreparationsAreRefusedOneByOne(t *testing.T) {
	s, _ := memStore(t)
	good := preparation(idA)
	bad := []func(*Preparation){
		func(p *Preparation) { p.Blocks = 100 }, func(p *Preparation) { p.Layers = nil },
		func(p *Preparation) { p.Layers = []uint32{2, 2} }, func(p *Preparation) { p.Layers = []uint32{0} },
		func(p *Preparation) { p.Epoch = 0 }, func(p *Preparation) { p.Version = 0 }, func(p *Preparation) { p.State = Stale },
	}
	ps := []Preparation{good, good}
	for i, f := range bad {
		p := good
		p.ID.Index = uint32(i + 10)
		f(&p)
		ps = append(ps, p)
	}
	errs := s.Prepare(ps)
	must(t, errs[0])
	for i, err := range errs[1:] {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("entry %d: %v", i+1, err)
		}
	}
	if n := len(inventory(s)); n != 1 {
		t.Errorf("%d replicas are here, want 1", n)
	}
}

func TestRemovedReplicaIsGoneAndMayComeAgain(t *testing.T) {
	bothWays(t, testRemovedReplicaIsGoneAndMayComeAgain)
}

func testRemovedReplicaIsGoneAndMayComeAgain(t *testing.T) {
	s, m := memStore(t, idA, idB)
	must(t, write(s, idA, access, 0, pattern(1, bs)))
	must(t, s.Remove([]chunk.ID{idA, {File: 99}}))
	wantErr(t, write(s, idA, access, 0, pattern(1, bs)), ErrNoChunk)
	prepared(t, s, idA)
	wantBytes(t, s, idA, access, 0, make([]byte, bs))
	must(t, s.Remove([]chunk.ID{idA, idB}))
	names, err := m.List("cs/chunks/07")
	must(t, err)
	if _, _, used := s.Space(); len(names) != 0 || used != 0 {
		t.Errorf("left behind: %v, %d bytes", names, used)
	}
}

// The pull runs while a writer goes on with parts, whole blocks and zeros, on both replicas.
func TestRebuildUnderLoadEndsWithEqualReplicas(t *testing.T) {
	bothWays(t, testRebuildUnderLoadEndsWithEqualReplicas)
}

func testRebuildUnderLoadEndsWithEqualReplicas(t *testing.T) {
	from, to, _ := sourceAndTarget(t)
	must(t, errors.Join(to.Prepare([]Preparation{rebuilt(idA, 3, 1)})...))
	must(t, from.Raise(7, 1, []ChunkVersion{{0, 3}}))
	rnd := rand.New(rand.NewPCG(1, 1))
	step := func() {
		for range rnd.IntN(4) {
			off := uint32(rnd.IntN(24)) * 2048
			n := uint32(1+rnd.IntN(6)) * 1024
			data := pattern(rnd.Uint64(), int(n))
			zero := rnd.IntN(5) == 0
			for _, s := range []*Store{from, to} {
				if zero {
					must(t, s.Zero(idA, atVersion(3), off, n, false))
				} else {
					must(t, write(s, idA, atVersion(3), off, data))
				}
			}
		}
	}
	for range 30 {
		pullAll(t, from, to, idA, 3, 3, 1, step, step)
		step()
	}
	must(t, to.SyncReplica(idA, 3))
	step()
	must(t, to.Promote(idA, 3))
	step()
	wantEqual(t, from, to, idA, atVersion(3))
}

func TestARebuiltReplicaHasTheSameCodesWhereRangesWereZeroed(t *testing.T) {
	bothWays(t, testARebuiltReplicaHasTheSameCodesWhereRangesWereZeroed)
}

// The edges of a range that is zeroed are parts of blocks: of some that have data, of some that are zeroed, of some that are absent.
func testARebuiltReplicaHasTheSameCodesWhereRangesWereZeroed(t *testing.T) {
	from, to, _ := sourceAndTarget(t) // blocks 0 to 7 have data
	v2, v3 := atVersion(2), atVersion(3)
	must(t, from.Zero(idA, v2, 10*bs, 2*bs, false))
	must(t, errors.Join(to.Prepare([]Preparation{rebuilt(idA, 3, 1)})...))
	must(t, from.Raise(7, 1, []ChunkVersion{{0, 3}}))
	edges := func(first uint32) func() {
		return func() {
			for _, s := range []*Store{from, to} {
				for _, off := range []uint32{3*bs + 512, 10*bs + 512, 20*bs + 512} {
					must(t, s.Zero(idA, v3, off+first*512, 1024, false))
				}
				must(t, s.Zero(idA, v3, (30+first)*bs+512, 1024, false)) // where nothing differs before
				must(t, write(s, idA, v3, 24*bs+first*512, pattern(uint64(first), 512)))
				must(t, s.Zero(idA, v3, 24*bs, 512, false))
			}
		}
	}
	edges(0)()
	pullAll(t, from, to, idA, 3, 3, 1, edges(1), nothing)
	edges(2)()
	must(t, to.SyncReplica(idA, 3))
	edges(3)()
	must(t, to.Promote(idA, 3))
	have, want := make([]uint32, testBlocks), make([]uint32, testBlocks)
	must(t, from.Table(idA, v3, 0, testBlocks*bs, want, true))
	must(t, to.Table(idA, v3, 0, testBlocks*bs, have, true))
	for b := range want {
		if have[b] != want[b] {
			t.Errorf("block %d has the code %x, in the source %x", b, have[b], want[b])
		}
	}
	wantEqual(t, from, to, idA, v3)
}
