package sessions

import (
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/meta/metapb"
)

// A burst of requests does not change what a server's share is; what goes on for an hour does.
func TestSharesDependOnLoadThatLasts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSession(NewRegistry(nil, slog.New(slog.DiscardHandler), func() {}), &metapb.Register{Id: 1})
		ops := uint64(0)
		load := func(d time.Duration, rate uint64) float64 {
			for range int(d / time.Second) {
				time.Sleep(time.Second)
				ops += rate
				s.beatWith(&metapb.Heartbeat{Reads: ops})
			}
			return s.Steady() / loadUnit
		}
		load(time.Minute, 0)
		if got := load(time.Minute, loadUnit); got > 0.05 {
			t.Errorf("after a minute: %.3f", got)
		}
		if got := load(2*time.Hour, loadUnit); got < 0.9 || got > 1 {
			t.Errorf("after two hours: %.3f", got)
		}
		if _, now := s.Load(); now != loadUnit {
			t.Errorf("now: %.0f", now)
		}
	})
}
