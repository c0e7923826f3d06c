package target

import (
	"context"
	"sync"
	"time"

	"pstorage/blockstore/block"
	"pstorage/meta/metapb"
)

// spaceEvery is how often the space of all volumes is looked up together while anybody wants to know it. A cluster fills no faster than its disks write.
const spaceEvery = 10 * time.Second

// spaces asks the metadata servers about the space of the volumes that somebody watches: one question for all of them at a time, and none while
// nobody does. Its goroutine lives as long as there are watchers.
type spaces struct {
	meta metapb.MetaClient
	ctx  context.Context

	mu       sync.Mutex
	watchers map[*spaceWatcher]struct{}
	known    map[uint64]block.Space // by file; of the last answer
	wake     chan struct{}          // a watcher has come about whose volume nothing is known
	running  bool
}

type spaceWatcher struct {
	file uint64
	f    func(block.Space)
}

func newSpaces(ctx context.Context, meta metapb.MetaClient) *spaces {
	return &spaces{meta: meta, ctx: ctx, watchers: map[*spaceWatcher]struct{}{}, wake: make(chan struct{}, 1)}
}

// watch implements block.Thin for a volume.
func (s *spaces) watch(file uint64, f func(block.Space)) (stop func()) {
	w := &spaceWatcher{file, f}
	s.mu.Lock()
	s.watchers[w] = struct{}{}
	known, ok := s.known[file]
	if !s.running {
		s.running = true
		go s.run()
	} else if !ok {
		s.hurry()
	}
	s.mu.Unlock()
	if ok {
		f(known)
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, w)
		if len(s.watchers) == 0 {
			s.hurry() // to end
		}
	}
}

func (s *spaces) hurry() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// run looks at once, then again and again until there are no watchers.
func (s *spaces) run() {
	again := time.NewTicker(spaceEvery)
	defer again.Stop()
	for s.look() {
		select {
		case <-again.C:
		case <-s.wake:
		case <-s.ctx.Done():
		}
	}
}

// look asks once and tells all watchers. It returns false when there are none, or nobody to ask, any more.
func (s *spaces) look() bool {
	files := s.watched()
	if files == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(s.ctx, rpcTime)
	defer cancel()
	reply, err := s.meta.Space(ctx, &metapb.SpaceRequest{Files: files})
	if err != nil {
		return true // what was known stays; the next look may tell more
	}
	for w, known := range s.learn(reply.Files) {
		w.f(known)
	}
	return true
}

// watched lists the files to ask about, each once; nil: this goroutine is to end.
func (s *spaces) watched() (files []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.watchers) == 0 || s.ctx.Err() != nil {
		s.running, s.known = false, nil
		return nil
	}
	seen := map[uint64]bool{}
	for w := range s.watchers {
		if !seen[w.file] {
			seen[w.file] = true
			files = append(files, w.file)
		}
	}
	return files
}

// learn keeps an answer and returns whom to tell. An empty one says that nothing is known now.
func (s *spaces) learn(files []*metapb.FileSpace) map[*spaceWatcher]block.Space {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(files) == 0 {
		return nil
	}
	s.known = map[uint64]block.Space{}
	for _, f := range files {
		s.known[f.File] = block.Space{Used: int64(f.Used), Available: int64(f.Available), Capacity: int64(f.Capacity)}
	}
	tell := map[*spaceWatcher]block.Space{}
	for w := range s.watchers {
		if known, ok := s.known[w.file]; ok {
			tell[w] = known
		}
	}
	return tell
}
