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

// circle is among how many of the last events one that repeats is looked for.
const circle = 3

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

	again int // how often the same message followed at once
}

// repeats tells whether an event is like another: what goes round in circles must not push out what led to it.
func (e *event) repeats(o *event) bool {
	return e.note != nil && o.note != nil && e.who == o.who && e.note.Message == o.note.Message && e.text() == o.text()
}

func newTrace() *trace { return &trace{begin: time.Now()} }

func (t *trace) add(e event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for back := range min(len(t.ring), circle) {
		if last := &t.ring[(t.next+len(t.ring)-1-back)%len(t.ring)]; e.repeats(last) {
			last.again++
			return
		}
	}
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
	fmt.Fprintf(out, "%10.4f %-8s %s", e.at.Sub(begin).Seconds(), e.who, e.text())
	if e.again > 0 {
		fmt.Fprintf(out, " (and %d more like it)", e.again)
	}
	out.WriteByte('\n')
}

func (e *event) text() string {
	if e.note == nil {
		return fmt.Sprintf(e.what, e.args...)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s: %s", e.note.Level, e.note.Message)
	put := func(a slog.Attr) bool { fmt.Fprintf(&out, " %s=%v", a.Key, a.Value); return true }
	for _, a := range e.more {
		put(a)
	}
	e.note.Attrs(put)
	return out.String()
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
