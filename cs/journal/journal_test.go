package journal

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

const testRing = minRing

var testID = ID{1, 2, 3, 15: 16}

func made(t testing.TB, m disk.FS) {
	t.Helper()
	if err := Create(m, "ssd/j", testID, testRing, 1); err != nil {
		t.Fatal(err)
	}
}

func opened(t testing.TB, m disk.FS, run uint64, o Options) *Journal {
	t.Helper()
	j, err := Open(m, "ssd/j", testID, run, o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// begun is a new journal whose run 2 has begun.
func begun(t testing.TB, m disk.FS, o Options) *Journal {
	t.Helper()
	made(t, m)
	j := opened(t, m, 1, o)
	must(t, j.Begin())
	return j
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantErr(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error %v, want %v", err, want)
	}
}

// sample is a record of n blocks with data that tell its number; of 0 blocks, one without data.
func sample(number, n int) Record {
	r := Record{ID: chunk.ID{File: uint64(number), Index: 7}, Layer: 3, First: uint32(number % 50), Blocks: uint32(n)}
	if n == 0 {
		r.Blocks, r.Code = 9, chunk.Zeros
		return r
	}
	r.Data = bytes.Repeat([]byte(fmt.Sprintf("%08d", number)), n*chunk.BlockSize/8)
	for i := range n {
		r.Sums = append(r.Sums, chunk.BlockSum(r.ID, r.First+uint32(i), r.Data[i*chunk.BlockSize:(i+1)*chunk.BlockSize]))
	}
	return r
}

func same(a, b Record) bool {
	return a.ID == b.ID && a.Layer == b.Layer && a.First == b.First && a.Blocks == b.Blocks && a.Code == b.Code &&
		fmt.Sprint(a.Sums) == fmt.Sprint(b.Sums) && bytes.Equal(a.Data, b.Data)
}

// replayed returns the numbers of the samples that count, each compared with what was appended.
func replayed(t testing.TB, j *Journal, sent map[int]Record) (numbers []int) {
	t.Helper()
	_, err := j.Replay(func(r *Record) error {
		n := int(r.ID.File)
		if want, ok := sent[n]; !ok || !same(*r, want) {
			t.Fatalf("record %d is another than was appended", n)
		}
		numbers = append(numbers, n)
		return nil
	})
	must(t, err)
	return numbers
}

func TestRecordsComeBackInOrder(t *testing.T) {
	m := disk.NewMem(1)
	j := begun(t, m, Options{})
	sent := map[int]Record{}
	for i, n := range []int{1, 0, 3, 1} {
		sent[i+1] = sample(i+1, n)
		must(t, j.Append(sent[i+1]))
	}
	must(t, j.Close())
	m.Restart(false)
	j = opened(t, m, 2, Options{})
	if got := fmt.Sprint(replayed(t, j, sent)); got != "[1 2 3 4]" {
		t.Fatalf("replayed %s", got)
	}
	must(t, j.Begin())
	must(t, j.Close())
	if got := replayed(t, opened(t, m, 3, Options{}), sent); len(got) != 0 {
		t.Fatalf("records %v count in the next run", got)
	}
}

func TestALongWriteIsCutIntoRecords(t *testing.T) {
	m := disk.NewMem(1)
	must(t, Create(m, "ssd/j", testID, 16<<20, 1))
	j := opened(t, m, 1, Options{})
	must(t, j.Begin())
	long := sample(1, 2*maxBlocks+5)
	must(t, j.Append(long))
	var got []byte
	next := long.First
	must(t, j.Close())
	n, err := opened(t, m, 2, Options{}).Replay(func(r *Record) error {
		if r.First != next || r.ID != long.ID {
			t.Errorf("record of blocks %d+%d, want %d", r.First, r.Blocks, next)
		}
		next, got = next+r.Blocks, append(got, r.Data...)
		return nil
	})
	must(t, err)
	if n != 3 || !bytes.Equal(got, long.Data) {
		t.Fatalf("%d records with %d bytes", n, len(got))
	}
}

// crash is one run of random appends, syncs and checkpoints that ends at a step.
type crash struct {
	j      *Journal
	sent   map[int]Record
	last   int
	synced int // samples up to this one are durable
	freed  int // samples up to this one are not needed
	maybe  int // of a Free that did not return
}

func (c *crash) run(rnd *rand.Rand) error {
	for range 60 {
		switch rnd.IntN(6) {
		case 0:
			at := c.last
			if err := c.j.Sync(); err != nil {
				return err
			}
			c.synced = at
		case 1:
			c.maybe = c.last
			if err := c.j.Free(c.j.Head()); err != nil {
				return err
			}
			c.freed, c.synced = c.maybe, c.maybe
		default:
			if err := c.append(rnd.IntN(4)); err != nil {
				return err
			}
		}
	}
	return c.j.Sync()
}

// append does not wait for room: when there is none it frees.
func (c *crash) append(n int) error {
	if st := c.j.Stats(); st.Used+RoomFor(n+1) > c.j.capacity() {
		c.maybe = c.last
		if err := c.j.Free(c.j.Head()); err != nil {
			return err
		}
		c.freed, c.synced = c.maybe, c.maybe
	}
	c.sent[c.last+1] = sample(c.last+1, n)
	err := c.j.Append(c.sent[c.last+1])
	if err == nil {
		c.last++
	}
	return err
}

func TestACrashAtAnyStepLosesNothingThatWasPromised(t *testing.T) {
	for seed := range uint64(6) {
		for _, power := range []bool{false, true} {
			for step := 1; ; step++ {
				if !crashAt(t, seed, step, power) {
					break
				}
			}
		}
	}
}

// crashAt runs twice on one ring, so that the second run is on top of what the first has left; it returns false if no crash came.
func crashAt(t *testing.T, seed uint64, step int, power bool) bool {
	m := disk.NewMem(seed<<20 + uint64(step))
	made(t, m)
	rnd := rand.New(rand.NewPCG(seed, 5))
	c := &crash{sent: map[int]Record{}}
	run := uint64(1)
	for _, dies := range []int{20 + rnd.IntN(60), step} {
		c.j = opened(t, m, run, Options{})
		must(t, c.j.Begin())
		run++
		c.synced, c.freed, c.maybe = c.last, c.last, c.last
		m.Dies(dies)
		err := c.run(rnd)
		m.Restart(power)
		c.check(t, opened(t, m, run, Options{}), fmt.Sprintf("seed %d, step %d, power %t", seed, step, power), power && err != nil)
		c.last++ // the one that was cut off, perhaps: its number is not used again
		if err == nil && dies == step {
			return false
		}
	}
	return true
}

func (c *crash) check(t *testing.T, j *Journal, when string, power bool) {
	got := replayed(t, j, c.sent)
	first, last := c.freed+1, c.last
	if power {
		last = c.synced
	}
	if len(got) > 0 && got[0] != first && got[0] != c.maybe+1 {
		t.Fatalf("%s: the first record is %d, not %d or %d", when, got[0], first, c.maybe+1)
	}
	for i := range got {
		if got[i] != got[0]+i {
			t.Fatalf("%s: record %d after %d", when, got[i], got[i-1])
		}
	}
	end := c.maybe
	if len(got) > 0 {
		end = got[len(got)-1]
	}
	if end < last || end > c.last+1 {
		t.Fatalf("%s: records end with %d; %d were durable, %d appended", when, end, last, c.last)
	}
}

func TestARecordThatWasDurableAndIsGoneIsDamage(t *testing.T) {
	for _, damaged := range []int{1, 2} {
		m := disk.NewMem(1)
		j := begun(t, m, Options{})
		var at []uint64
		for i := range 4 {
			at = append(at, j.Head().Off)
			must(t, j.Append(sample(i, 1)))
			if i == 2 {
				must(t, j.Sync())
			}
		}
		if _, err := j.f.WriteAt([]byte("rot"), ringOffset+int64(at[damaged])+700); err != nil {
			t.Fatal(err)
		}
		must(t, j.Close())
		_, err := opened(t, m, 2, Options{}).Replay(func(*Record) error { return nil })
		wantErr(t, err, ErrDamaged)
	}
}

func TestATornTailIsNoDamage(t *testing.T) {
	m := disk.NewMem(1)
	j := begun(t, m, Options{})
	sent := map[int]Record{}
	var off int64
	for i := range 4 {
		if i == 2 {
			must(t, j.Sync())
			off = int64(j.Head().Off)
		}
		sent[i] = sample(i, 1)
		must(t, j.Append(sent[i]))
	}
	_, err := j.f.WriteAt([]byte("rot"), ringOffset+off+700)
	must(t, err)
	must(t, j.Close())
	if got := fmt.Sprint(replayed(t, opened(t, m, 2, Options{}), sent)); got != "[0 1]" {
		t.Fatalf("replayed %s", got)
	}
}

func TestOneSyncServesAllThatWait(t *testing.T) {
	m := disk.NewMem(1)
	j := begun(t, m, Options{})
	hold, entered := make(chan struct{}), make(chan struct{}, 64)
	m.Fails(func(s disk.Step) error {
		if s.Op == disk.OpSync {
			entered <- struct{}{}
		}
		return nil
	})
	j.syncing.Lock() // as if one was under way
	var wg sync.WaitGroup
	for i := range 10 {
		must(t, j.Append(sample(i, 1)))
		wg.Go(func() { <-hold; must(t, j.Sync()) })
	}
	close(hold)
	j.syncing.Unlock()
	wg.Wait()
	if n := j.Stats().Syncs; n != 1 || len(entered) != 1 {
		t.Errorf("%d syncs for ten at once", n)
	}
	must(t, j.Sync())
	if n := j.Stats().Syncs; n != 1 {
		t.Error("a sync with nothing new")
	}
}

func TestAFullJournalHoldsWritersBackUntilThereIsRoom(t *testing.T) {
	m := disk.NewMem(1)
	full := make(chan struct{}, 100)
	j := begun(t, m, Options{Full: func() { full <- struct{}{} }})
	n := 0
	for ; j.Stats().Used+RoomFor(1) <= j.capacity(); n++ {
		must(t, j.Reserve(RoomFor(1)))
		must(t, j.Append(sample(n, 1)))
		j.Release(RoomFor(1))
	}
	if len(full) != 1 {
		t.Errorf("asked for a checkpoint %d times before it was full", len(full))
	}
	<-full
	got := make(chan error)
	go func() { got <- j.Reserve(RoomFor(1)) }()
	<-full // it waits
	select {
	case err := <-got:
		t.Fatalf("room in a full journal: %v", err)
	default:
	}
	must(t, j.Free(j.Head()))
	must(t, <-got)
	if st := j.Stats(); st.Waits != 1 || st.Used != 0 || st.Checkpoints != 1 || st.Records != uint64(n) {
		t.Errorf("stats %+v", st)
	}
	wantErr(t, j.Reserve(testRing), ErrSize)
	go func() { got <- j.Reserve(j.capacity() / 2) }()
	must(t, <-got)
	go func() { got <- j.Reserve(j.capacity() / 2) }()
	<-full
	must(t, j.Close())
	wantErr(t, <-got, ErrClosed)
}

func TestTheLastRecordOfAFullRingLeavesTheFirst(t *testing.T) {
	m := disk.NewMem(1)
	j := begun(t, m, Options{})
	must(t, j.Append(sample(0, 0)))
	must(t, j.Free(j.Head())) // so that the ring does not begin at a page
	sent := map[int]Record{}
	for n := 1; j.Stats().Used < j.capacity(); n++ {
		sent[n] = sample(n, 0)
		must(t, j.Append(sent[n]))
	}
	must(t, j.Close())
	if got := replayed(t, opened(t, m, 2, Options{}), sent); len(got) != len(sent) {
		t.Errorf("%d of %d records are there", len(got), len(sent))
	}
}

func TestAFailedJournalTakesNothingAnyMore(t *testing.T) {
	for _, op := range []disk.Op{disk.OpWrite, disk.OpSync} {
		m := disk.NewMem(1)
		var told []error
		j := begun(t, m, Options{Failed: func(err error) { told = append(told, err) }})
		must(t, j.Append(sample(1, 1)))
		m.Fails(func(s disk.Step) error {
			if s.Op == op {
				return disk.ErrIO
			}
			return nil
		})
		err := j.Append(sample(2, 1))
		if err == nil {
			err = j.Sync()
		}
		wantErr(t, err, ErrIO)
		m.Fails(nil)
		wantErr(t, j.Sync(), ErrIO)
		wantErr(t, j.Append(sample(3, 1)), ErrIO)
		wantErr(t, j.Reserve(1), ErrIO)
		wantErr(t, j.Free(j.Head()), ErrIO)
		if len(told) != 1 || !strings.Contains(told[0].Error(), "ssd/j") {
			t.Errorf("told %v", told)
		}
	}
}

func TestAForeignOrOldJournalIsRefused(t *testing.T) {
	m := disk.NewMem(1)
	_, err := Open(m, "ssd/j", testID, 1, Options{})
	wantErr(t, err, fs.ErrNotExist)
	j := begun(t, m, Options{})
	must(t, j.Close())
	wantErr(t, Create(m, "ssd/j", testID, testRing, 1), fs.ErrExist)
	wantErr(t, Create(m, "ssd/k", testID, testRing+1, 1), ErrSize)
	for _, run := range []uint64{0, 3} {
		_, err := Open(m, "ssd/j", testID, run, Options{})
		wantErr(t, err, ErrForeign)
	}
	_, err = Open(m, "ssd/j", ID{9}, 2, Options{})
	wantErr(t, err, ErrForeign)
	must(t, Remove(m, "ssd/j"))
	must(t, Remove(m, "ssd/j"))
	if _, err := m.List("ssd/j"); err == nil {
		t.Error("the folder is left")
	}
}

func TestAHalfMadeJournalIsTakenAway(t *testing.T) {
	m := disk.NewMem(1)
	m.Limit(testRing / 2)
	wantErr(t, Create(m, "ssd/j", testID, testRing, 1), disk.ErrNoSpace)
	if names, err := m.List("ssd/j"); err != nil || len(names) != 0 {
		t.Errorf("left: %v %v", names, err)
	}
}
