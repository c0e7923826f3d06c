package recovery

import (
	"maps"
	"time"

	"pstorage/meta/fsm"
)

const (
	firstPause = time.Second
	lastPause  = time.Minute
	// interruptPause keeps a chunk that changes all the time from being all that recovery is busy with.
	interruptPause = 50 * time.Millisecond
	// relapsePeriod is how soon after a rebuild a failure counts as another of the same.
	relapsePeriod = 2 * time.Minute
	// maxPauses bounds how many are remembered.
	maxPauses = 100_000
)

// pauses are what is left alone for a while: a server as the target of a chunk that failed there, or, under server 0, the chunk. Guarded by Engine.mu.
type pauses map[pauseKey]pause

type pauseKey struct {
	chunk  fsm.ChunkKey
	server uint32
}

// pause is until when something is left alone, or, in the past, when the chunk was rebuilt there; wait is what the next failure doubles.
type pause struct {
	until time.Time
	wait  time.Duration
}

// on tells whether a server is to be left alone, as far as a chunk is concerned; server 0: the chunk.
func (p pauses) on(k fsm.ChunkKey, server uint32) bool {
	return time.Now().Before(p[pauseKey{k, server}].until)
}

// failed leaves a target alone, longer each time.
func (p pauses) failed(k fsm.ChunkKey, server uint32) {
	wait := min(max(2*p[pauseKey{k, server}].wait, firstPause), lastPause)
	p.note(pauseKey{k, server}, wait, wait)
}

// rebuilt notes that a chunk has a good replica on a server again.
func (p pauses) rebuilt(k fsm.ChunkKey, server uint32) {
	p.note(pauseKey{k, server}, 0, p[pauseKey{k, server}].wait)
}

// relapsed notes that a replica has failed, and leaves the server alone if it was rebuilt there lately.
func (p pauses) relapsed(k fsm.ChunkKey, server uint32) {
	if was, rebuilt := p[pauseKey{k, server}]; rebuilt && time.Since(was.until) < relapsePeriod {
		p.failed(k, server)
	}
}

// interrupted leaves a chunk alone for a moment: what has ended its rebuild, a lease granted or another change, is no server's fault.
func (p pauses) interrupted(k fsm.ChunkKey) { p.note(pauseKey{k, 0}, interruptPause, 0) }

func (p pauses) note(k pauseKey, some, wait time.Duration) {
	if _, known := p[k]; known || len(p) < maxPauses {
		p[k] = pause{until: time.Now().Add(some), wait: wait}
	}
}

// forget forgets those that are over for long.
func (p pauses) forget() {
	maps.DeleteFunc(p, func(_ pauseKey, was pause) bool { return time.Since(was.until) > relapsePeriod })
}
