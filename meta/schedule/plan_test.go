package schedule

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pstorage/meta/fsm/fsmpb"
)

func at(text string) time.Time {
	t, err := time.Parse("2006-01-02 15:04:05", text)
	if err != nil {
		panic(err)
	}
	return t
}

func shot(taken string, kinds uint32) *fsmpb.Snapshot {
	return &fsmpb.Snapshot{Id: []byte(taken), Created: at(taken).Unix(), Scheduled: kinds}
}

func TestASnapshotIsDueOncePerPeriod(t *testing.T) {
	all := &fsmpb.Schedule{Hourly: 1, Daily: 1, Weekly: 1}
	monday := shot("2026-11-23 00:00:10", 7)
	for _, c := range []struct {
		s    *fsmpb.Schedule
		have []*fsmpb.Snapshot
		now  string
		want uint32
	}{
		{all, nil, "2026-11-23 00:00:00", 7},
		{all, []*fsmpb.Snapshot{monday}, "2026-11-23 00:59:59", 0},
		{all, []*fsmpb.Snapshot{monday}, "2026-11-23 01:00:00", 1},
		{all, []*fsmpb.Snapshot{monday}, "2026-11-23 23:59:59", 1},
		{all, []*fsmpb.Snapshot{monday}, "2026-11-24 00:00:00", 3},
		{all, []*fsmpb.Snapshot{monday}, "2026-11-29 23:59:59", 3},
		{all, []*fsmpb.Snapshot{monday}, "2026-11-30 00:00:00", 7},
		{all, []*fsmpb.Snapshot{shot("2026-11-23 00:00:10", 0)}, "2026-11-23 00:00:20", 7}, // by request
		{all, []*fsmpb.Snapshot{shot("2100-01-01 00:00:00", 7)}, "2026-11-23 00:00:20", 7}, // by a wrong clock
		{&fsmpb.Schedule{Daily: 1}, nil, "2026-11-23 00:00:00", 2},
		{&fsmpb.Schedule{}, nil, "2026-11-23 00:00:00", 0},
	} {
		if got := due(c.s, c.have, at(c.now)); got != c.want {
			t.Errorf("%v at %s: %d, want %d", c.s, c.now, got, c.want)
		}
	}
}

func TestTheNewestOfEachKindAreKept(t *testing.T) {
	var all []*fsmpb.Snapshot
	for hour := range 72 {
		kinds := uint32(1)
		if hour%24 == 0 {
			kinds |= 2
		}
		all = append(all, shot(at("2026-11-23 00:00:00").Add(time.Duration(hour)*time.Hour).Format("2006-01-02 15:04:05"), kinds))
	}
	all[5].Protected = true
	all[7].Scheduled = 0
	gone := expired(&fsmpb.Schedule{Hourly: 3, Daily: 2}, all)
	var kept []string
	for i, s := range all {
		if !slices.ContainsFunc(gone, func(id []byte) bool { return string(id) == string(s.Id) }) {
			kept = append(kept, fmt.Sprint(i))
		}
	}
	if want := []string{"5", "7", "24", "48", "69", "70", "71"}; !slices.Equal(kept, want) {
		t.Errorf("kept %v, want %v", kept, want)
	}
}
