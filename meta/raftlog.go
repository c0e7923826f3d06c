package meta

import (
	"context"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// raftLogger passes Raft's messages on to slog, one level lower: what Raft warns of (an election, a peer that is slow) is its daily life.
type raftLogger struct {
	hclog.Logger // answers what nobody asks
	log          *slog.Logger
}

func newRaftLogger(l *slog.Logger) hclog.Logger {
	return &raftLogger{hclog.NewNullLogger(), l.With("part", "raft")}
}

func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	l.log.Log(context.Background(), levelOf(level), msg, args...)
}

func levelOf(level hclog.Level) slog.Level {
	switch {
	case level >= hclog.Error:
		return slog.LevelError
	case level == hclog.Warn:
		return slog.LevelInfo
	}
	return slog.LevelDebug
}

func (l *raftLogger) Trace(string, ...any)           {}
func (l *raftLogger) Debug(msg string, args ...any)  { l.Log(hclog.Debug, msg, args...) }
func (l *raftLogger) Info(msg string, args ...any)   { l.Log(hclog.Info, msg, args...) }
func (l *raftLogger) Warn(msg string, args ...any)   { l.Log(hclog.Warn, msg, args...) }
func (l *raftLogger) Error(msg string, args ...any)  { l.Log(hclog.Error, msg, args...) }
func (l *raftLogger) IsDebug() bool                  { return true }
func (l *raftLogger) IsInfo() bool                   { return true }
func (l *raftLogger) IsWarn() bool                   { return true }
func (l *raftLogger) IsError() bool                  { return true }
func (l *raftLogger) Named(string) hclog.Logger      { return l }
func (l *raftLogger) ResetNamed(string) hclog.Logger { return l }
func (l *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{l.Logger, l.log.With(args...)}
}
