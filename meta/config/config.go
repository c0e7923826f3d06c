// Package config knows the cluster's parameters: names, defaults, and what values they take.
//
// # DESIGN
//
// Parameters are text in the state machine; Parse makes Settings of it, in which every parameter has a value. A value that this version
// does not understand (written by a newer one) counts as the default. No goroutines, no locks.
package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Errors of Check.
var (
	ErrUnknown = errors.New("no such parameter")
	ErrValue   = errors.New("bad value of a parameter")
)

// Settings are the parameters' values.
type Settings struct {
	OfflineAfter        time.Duration // mds.wd.offline_tout
	MaxOffline          int           // mds.wd.max_offline_cs; 0: no limit
	MaxOfflineHosts     int           // mds.wd.max_offline_cs_hosts; 0: no limit
	FillMargin          int           // mds.alloc.fill_margin, percent
	StrictFailureDomain bool          // mds.alloc.strict_failure_domain
	RecoveryStreams     int           // mds.wd.recovery_streams, per chunk server
	RecoveryRate        uint64        // mds.wd.recovery_rate, bytes per second and chunk server; 0: no limit
	RemoveGrace         time.Duration // mds.wd.remove_grace
	TakeOverAfter       time.Duration // mds.wd.takeover_tout
	VerifyChunks        int           // mds.wd.verify_chunks, per minute and chunk server; 0: none
	VerifyRate          uint64        // mds.wd.verify_rate, bytes per second and chunk server; 0: no limit
	Rebalance           bool          // mds.wd.rebalance
}

type parameter struct {
	name  string
	value string // default
	set   func(*Settings, string) error
}

var parameters = []parameter{
	{"mds.alloc.fill_margin", "5", number(0, 50, func(s *Settings, n int) { s.FillMargin = n })},
	{"mds.alloc.strict_failure_domain", "1", number(0, 1, func(s *Settings, n int) { s.StrictFailureDomain = n == 1 })},
	{"mds.wd.max_offline_cs", "2", number(0, 100000, func(s *Settings, n int) { s.MaxOffline = n })},
	{"mds.wd.max_offline_cs_hosts", "2", number(0, 100000, func(s *Settings, n int) { s.MaxOfflineHosts = n })},
	{"mds.wd.offline_tout", "5min", period(func(s *Settings, d time.Duration) { s.OfflineAfter = d })},
	{"mds.wd.rebalance", "1", number(0, 1, func(s *Settings, n int) { s.Rebalance = n == 1 })},
	{"mds.wd.recovery_rate", "0", number(0, 1<<40, func(s *Settings, n int) { s.RecoveryRate = uint64(n) })},
	{"mds.wd.recovery_streams", "8", number(1, 256, func(s *Settings, n int) { s.RecoveryStreams = n })},
	{"mds.wd.remove_grace", "10min", period(func(s *Settings, d time.Duration) { s.RemoveGrace = d })},
	{"mds.wd.takeover_tout", "1h", period(func(s *Settings, d time.Duration) { s.TakeOverAfter = d })},
	{"mds.wd.verify_chunks", "2", number(0, 100000, func(s *Settings, n int) { s.VerifyChunks = n })},
	{"mds.wd.verify_rate", "33554432", number(0, 1<<40, func(s *Settings, n int) { s.VerifyRate = uint64(n) })},
}

func number(least, most int, put func(*Settings, int)) func(*Settings, string) error {
	return func(s *Settings, text string) error {
		n, err := strconv.Atoi(text)
		if err != nil || n < least || n > most {
			return fmt.Errorf("%q: a number from %d to %d: %w", text, least, most, ErrValue)
		}
		put(s, n)
		return nil
	}
}

// maxPeriod is the longest time a parameter may say.
const maxPeriod = 366 * 24 * time.Hour

func period(put func(*Settings, time.Duration)) func(*Settings, string) error {
	return func(s *Settings, text string) error {
		d, err := parsePeriod(text)
		if err != nil || d < 0 || d > maxPeriod {
			return fmt.Errorf("%q: a time like 30s, 5min, 2h, 1d: %w", text, ErrValue)
		}
		put(s, d)
		return nil
	}
}

// parsePeriod reads a number with a unit; seconds without one.
func parsePeriod(text string) (time.Duration, error) {
	digits := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyz ")
	n, err := strconv.ParseInt(digits, 10, 32)
	if err != nil {
		return 0, err
	}
	switch strings.TrimSpace(text[len(digits):]) {
	case "", "s", "sec":
		return time.Duration(n) * time.Second, nil
	case "ms":
		return time.Duration(n) * time.Millisecond, nil
	case "m", "min":
		return time.Duration(n) * time.Minute, nil
	case "h":
		return time.Duration(n) * time.Hour, nil
	case "d":
		return time.Duration(n) * 24 * time.Hour, nil
	}
	return 0, ErrValue
}

// Check tells whether a parameter may be set to a value; empty sets the default.
func Check(name, value string) error {
	for _, p := range parameters {
		if p.name != name {
			continue
		}
		if value == "" {
			return nil
		}
		if err := p.set(&Settings{}, value); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return nil
	}
	return fmt.Errorf("%q: %w", name, ErrUnknown)
}

// Parse returns the settings where those parameters have been set.
func Parse(set map[string]string) Settings {
	var s Settings
	for _, p := range parameters {
		if v, ok := set[p.name]; !ok || p.set(&s, v) != nil {
			_ = p.set(&s, p.value) // the default is valid: a test says so
		}
	}
	return s
}

// All returns every parameter's value, defaults where it has not been set.
func All(set map[string]string) map[string]string {
	out := map[string]string{}
	for _, p := range parameters {
		out[p.name] = p.value
		if v, ok := set[p.name]; ok {
			out[p.name] = v
		}
	}
	return out
}
