// Package daemon is what every long-running command shares: signals, the lock on its folder, listeners and their rules,
// the metrics page, word to the service manager, memory limits and logging.
//
// # DESIGN
//
// Invariants:
//   - A folder is served by one process at a time: the lock is the kernel's (flock), so it ends with the process
//     however that ends, and no stale file can stand in the way.
//   - Nothing listens where other machines could reach it unless the administrator said so (--insecure-network), as long as
//     connections carry no authentication.
//
// Goroutines: one per metrics listener, ended by its Close.
package daemon

import (
	"context"
	"io"
	"log/slog"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// Memory limits that daemons start with, unless GOGC and GOMEMLIMIT say otherwise. Heaps are small and the hot paths
// allocate nothing, so collecting at double the live heap is cheap; the limit makes it more eager before the process grows to
// what the machine was not planned for.
const (
	gcPercent   = 100
	memoryLimit = 192 << 20
)

// LimitMemory applies the defaults above; services is how many daemons the process holds. env looks variables up.
func LimitMemory(services int, env func(string) string) {
	if env("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if env("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(services) * memoryLimit)
	}
}

// UntilSignal returns a context that ends at SIGTERM or SIGINT. After stop a further signal ends the process at once.
func UntilSignal(parent context.Context) (ctx context.Context, stop context.CancelFunc) {
	ctx, cancel := signal.NotifyContext(parent, syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, cancel)
	return ctx, cancel
}

// Logger writes text lines at a level named debug, info, warn or error.
func Logger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, err
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})), nil
}
