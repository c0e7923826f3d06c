package blockstore

import (
	"log/slog"
	"sync"
	"time"
)

// warnEvery is how often the same warning is given: what cannot be mended is tried again many times a minute.
const warnEvery = 10 * time.Second

// warner gives warnings that may repeat.
type warner struct {
	mu   sync.Mutex
	last map[string]time.Time
}

func (w *warner) warn(log *slog.Logger, msg string, args ...any) {
	w.mu.Lock()
	again := time.Since(w.last[msg]) < warnEvery
	if !again {
		if w.last == nil {
			w.last = map[string]time.Time{}
		}
		w.last[msg] = time.Now()
	}
	w.mu.Unlock()
	if !again {
		log.Warn(msg, args...)
	}
}
