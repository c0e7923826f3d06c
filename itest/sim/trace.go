package sim

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// traceSize is how many of the last events a failing run prints.
const traceSize = 4000

// trace keeps the last events of a run: faults, what clients did, and what the servers logged. Text is made of them only when somebody
// wants to read it.
type trace struct {
	begin time.Time
	mu    sync.Mutex
	ring  []event
	next  int
	wrong func(format string, args ...any) // called for an assertion that has failed
}

// assertion is what servers log of one that has failed.
const assertion = "an assertion has failed"

type event struct {
	at   time.Time
	who  string
	what string
	args []any
	note *slog.Record
	more []slog.Attr
}

func newTrace() *trace { return &trace{begin: time.Now()} }

func (t *trace) add(e event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.ring) < traceSize {
		t.ring = append(t.ring, e)
		return
	}
	t.ring[t.next] = e
	t.next = (t.next + 1) % traceSize
}

func (t *trace) logf(who, what string, args ...any) {
	t.add(event{at: time.Now(), who: who, what: what, args: args})
}

// String is the trace, oldest first.
func (t *trace) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out strings.Builder
	for i := range t.ring {
		t.ring[(t.next+i)%len(t.ring)].write(&out, t.begin)
	}
	return out.String()
}

func (e *event) write(out *strings.Builder, begin time.Time) {
	fmt.Fprintf(out, "%10.4f %-8s ", e.at.Sub(begin).Seconds(), e.who)
	if e.note == nil {
		fmt.Fprintf(out, e.what+"\n", e.args...)
		return
	}
	fmt.Fprintf(out, "%s: %s", e.note.Level, e.note.Message)
	put := func(a slog.Attr) bool { fmt.Fprintf(out, " %s=%v", a.Key, a.Value); return true }
	for _, a := range e.more {
		put(a)
	}
	e.note.Attrs(put)
	out.WriteByte('\n')
}

// logger returns a logger that writes into the trace.
func (t *trace) logger(who string) *slog.Logger { return slog.New(&handler{t: t, who: who}) }

type handler struct {
	t    *trace
	who  string
	more []slog.Attr
}

func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelInfo }

func (h *handler) Handle(_ context.Context, r slog.Record) error {
	note := r.Clone()
	e := event{at: time.Now(), who: h.who, note: &note, more: h.more}
	h.t.add(e)
	if r.Message == assertion && h.t.wrong != nil {
		var line strings.Builder
		e.write(&line, h.t.begin)
		h.t.wrong("%s", strings.TrimSpace(line.String()))
	}
	return nil
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	more := append(append([]slog.Attr(nil), h.more...), attrs...)
	return &handler{t: h.t, who: h.who, more: more}
}

func (h *handler) WithGroup(string) slog.Handler { return h }
