package blockstore

import (
	"sync"
	"sync/atomic"
)

const tablePage = 256

// chunkTable finds chunks by index, without a lock. Pages and chunks are made when first needed and stay.
type chunkTable struct {
	mu    sync.Mutex
	pages atomic.Pointer[[]*chunkPage] // replaced when it grows; the pages are shared
}

type chunkPage [tablePage]atomic.Pointer[chunkState]

// grow makes room for n chunks.
func (t *chunkTable) grow(n uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var old []*chunkPage
	if p := t.pages.Load(); p != nil {
		old = *p
	}
	want := int((uint64(n) + tablePage - 1) / tablePage)
	if t.pages.Load() != nil && want <= len(old) {
		return
	}
	pages := make([]*chunkPage, want)
	copy(pages, old)
	for i := len(old); i < want; i++ {
		pages[i] = new(chunkPage)
	}
	t.pages.Store(&pages)
}

// find returns a chunk, nil if there is none.
func (t *chunkTable) find(index uint32) *chunkState {
	pages := *t.pages.Load()
	if int(index/tablePage) >= len(pages) {
		return nil
	}
	return pages[index/tablePage][index%tablePage].Load()
}

// get returns a chunk, made if need be.
func (t *chunkTable) get(index uint32) *chunkState {
	if int(index/tablePage) >= len(*t.pages.Load()) {
		t.grow(index + 1)
	}
	slot := &(*t.pages.Load())[index/tablePage][index%tablePage]
	if ch := slot.Load(); ch != nil {
		return ch
	}
	ch := &chunkState{index: index}
	if slot.CompareAndSwap(nil, ch) {
		return ch
	}
	return slot.Load()
}

// each calls f for every chunk there is, until it returns false.
func (t *chunkTable) each(f func(*chunkState) bool) {
	for _, page := range *t.pages.Load() {
		for i := range page {
			if ch := page[i].Load(); ch != nil && !f(ch) {
				return
			}
		}
	}
}
