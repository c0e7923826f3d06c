package wire

import "testing"

func TestAJobKeepsSmallMemoryAndSharesLarge(t *testing.T) {
	for _, n := range []int{1, keepScratch, keepScratch + 1, 1 << leastLarge, 1<<leastLarge + 1, ReplySize + MaxPayload, 1 << mostLarge, 1<<mostLarge + 1} {
		b := roomFor(nil, n)
		if len(b) != 0 || cap(b) < n {
			t.Fatalf("%d bytes: length %d, capacity %d", n, len(b), cap(b))
		}
		b = append(b, make([]byte, n)...)
		if back := kept(b); len(back) != 0 || n <= keepScratch && cap(back) < n || n > keepScratch && back != nil {
			t.Errorf("%d bytes: kept %d of %d", n, len(back), cap(back))
		}
	}
}

func TestLargeMemoryIsUsedAgain(t *testing.T) {
	again := func() {
		b := roomFor(nil, 2*keepScratch)
		kept(b[:2*keepScratch])
	}
	again()
	if n := testing.AllocsPerRun(100, again); n > 2 { // the header of the slice; now and then the collector empties the pool
		t.Errorf("%v allocations each time", n)
	}
	if b := roomFor(make([]byte, 0, 100), 100); cap(b) != 100 {
		t.Error("other memory although there was room")
	}
}
