package cs

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
	"pstorage/meta/metapb"
)

const (
	// maxVerify bounds the replicas that one command has verified.
	maxVerify = 1024
	// datesPage is how many files one message has the dates of.
	datesPage = 4096
)

var (
	errTooManyToVerify = fmt.Errorf("more than %d replicas to verify at once", maxVerify)
)

// notWhole: so many bad blocks are left that no other replica has.
type notWhole uint64

func (n notWhole) Error() string {
	return fmt.Sprintf("%d bad blocks are left that no other replica has", uint64(n))
}

// scrubs are the verifications of an attachment: one at a time, the rest waits.
type scrubs struct {
	turn chan struct{} // holds one value while somebody has the turn
	wg   sync.WaitGroup
	said map[uint64]store.Dates // what the metadata servers were told last; for who has the turn
}

// take waits for the turn; false: the attachment has ended. Nobody waits by a lock for what takes as long as reading a disk.
func (s *scrubs) take(ctx context.Context) bool {
	select {
	case s.turn <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// pass gives the turn on.
func (s *scrubs) pass() { <-s.turn }

// scrubbed counts what verification has come to, since the start.
type scrubbed struct {
	replicas, bytes, bad, mended atomic.Uint64
}

func (c *scrubbed) add(v store.Verified) {
	c.replicas.Add(1)
	c.bytes.Add(v.Bytes)
	c.bad.Add(v.Bad)
	c.mended.Add(v.Mended)
}

// scrub has do run as the only verification, when its turn has come, and then tells what has come of all so far.
func (a *attachment) scrub(cmd uint64, rate uint64, do func(pace func(int) error) error) {
	a.scrubs.wg.Go(func() {
		var blocks, bytes atomic.Uint64
		defer a.goesOn(cmd, &blocks, &bytes)()
		if !a.scrubs.take(a.ctx) {
			return // and with it who asked
		}
		defer a.scrubs.pass()
		limit := limiter{rate: rate}
		err := do(func(n int) error {
			bytes.Add(uint64(n))
			return limit.wait(a.ctx, n)
		})
		a.sayDates()
		if err != nil {
			a.fail(cmd, err)
			return
		}
		a.result(cmd, []error{nil})
	})
}

// startVerify verifies replicas; one that cannot be verified now is left out.
func (a *attachment) startVerify(cmd uint64, m *metapb.Verify) {
	if len(m.Chunks)+int(m.Due) > maxVerify {
		a.fail(cmd, errTooManyToVerify)
		return
	}
	a.scrub(cmd, m.BytesPerSecond, func(pace func(int) error) error {
		var ids []chunk.ID
		for _, c := range m.Chunks {
			ids = append(ids, chunkOf(c))
		}
		for _, id := range append(ids, a.s.engine.Due(int(m.Due))...) {
			if _, err := a.verify(id, pace, nil); err != nil {
				if a.ctx.Err() != nil {
					return context.Cause(a.ctx)
				}
				a.s.log.Info("a replica was not verified", "chunk", id, "error", err)
			}
		}
		return nil
	})
}

// startMend mends a replica.
func (a *attachment) startMend(cmd uint64, m *metapb.Mend) {
	id, version := chunkOf(m.Chunk), m.Chunk.GetVersion()
	a.scrub(cmd, m.BytesPerSecond, func(pace func(int) error) error {
		o := &others{s: a.s, ctx: a.ctx, id: id, versions: a.s.versionsOf(id, version), addrs: m.Others}
		defer o.release()
		f := &others{s: a.s, ctx: a.ctx, id: id, addrs: m.Former}
		defer f.release()
		v, err := a.verify(id, pace, &store.Mending{Member: o.block, Former: f.former, Lose: m.Lose, Version: version})
		if err == nil && v.Mended != v.Bad {
			err = notWhole(v.Bad - v.Mended)
		}
		if err == nil {
			a.s.dealtWith(id)
			a.s.log.Info("a bad replica was mended", "chunk", id, "blocks", v.Mended, "lost", v.Lost)
		}
		return err
	})
}

func (a *attachment) verify(id chunk.ID, pace func(int) error, how *store.Mending) (store.Verified, error) {
	v, err := a.s.engine.Verify(id, pace, how)
	if err == nil || v.Bad > 0 { // what is found bad is reported at once, and may be dropped before all of it was read
		a.s.count.scrubbed.add(v)
	}
	if v.Bad > 0 {
		a.s.log.Warn("a replica has bad blocks", "chunk", id, "bad", v.Bad, "mended", v.Mended)
	}
	return v, err
}

// sayDates tells the counters, and the dates of files for which they have changed.
func (a *attachment) sayDates() {
	dates := a.s.engine.Dates()
	pages := []*metapb.Scrubbed{{Total: a.s.scrubbing(dates)}}
	add := func(file uint64, d store.Dates) {
		page := pages[len(pages)-1]
		if len(page.Files) == datesPage {
			page = &metapb.Scrubbed{Total: pages[0].Total}
			pages = append(pages, page)
		}
		page.Files = append(page.Files, &metapb.FileDates{File: file, OldestUnix: d.Oldest, Never: d.Never})
	}
	for file, d := range dates {
		if said, ok := a.scrubs.said[file]; !ok || said != d {
			add(file, d)
		}
	}
	for file := range maps.Keys(a.scrubs.said) {
		if _, here := dates[file]; !here {
			add(file, store.Dates{})
		}
	}
	a.scrubs.said = dates
	for _, page := range pages {
		a.say(&metapb.FromServer{Message: &metapb.FromServer_Scrubbed{Scrubbed: page}})
	}
}

// scrubbing is what the server tells of itself.
func (s *Server) scrubbing(dates map[uint64]store.Dates) *metapb.Scrubbing {
	n := &s.count.scrubbed
	out := &metapb.Scrubbing{Replicas: n.replicas.Load(), Bytes: n.bytes.Load(), Bad: n.bad.Load(), Mended: n.mended.Load()}
	for _, d := range dates {
		out.Never += d.Never
		if d.Oldest != 0 && (out.OldestUnix == 0 || d.Oldest < out.OldestUnix) {
			out.OldestUnix = d.Oldest
		}
	}
	return out
}

// quarantine marks those bad that the metadata servers know as such: a reader may have found out, of which nobody here has heard.
func (a *attachment) quarantine(chunks []*metapb.ChunkAt) {
	for _, c := range chunks {
		if !c.Corrupt {
			continue
		}
		if err := a.s.engine.Quarantine(chunkOf(c)); err != nil {
			a.s.log.Warn("a bad replica is not marked as such", "chunk", chunkOf(c), "error", err)
		}
	}
}
