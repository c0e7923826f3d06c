package schedule

import (
	"time"

	"pstorage/meta/fsm/fsmpb"
)

// kind is one line of a schedule. Its bit is part of the format (fsmpb.Snapshot.scheduled).
type kind struct {
	bit    uint32
	period time.Duration
	keep   func(*fsmpb.Schedule) uint32
}

// kinds: periods begin with the hour, the day and Monday, in UTC.
var kinds = []kind{
	{1, time.Hour, (*fsmpb.Schedule).GetHourly},
	{2, 24 * time.Hour, (*fsmpb.Schedule).GetDaily},
	{4, 7 * 24 * time.Hour, (*fsmpb.Schedule).GetWeekly},
}

// due returns, as bits, for which kinds no snapshot was taken yet in the period that it is.
func due(s *fsmpb.Schedule, all []*fsmpb.Snapshot, now time.Time) (bits uint32) {
	for _, k := range kinds {
		begin := now.UTC().Truncate(k.period)
		there := k.keep(s) == 0
		for _, shot := range all {
			taken := time.Unix(shot.Created, 0)
			there = there || shot.Scheduled&k.bit != 0 && !taken.Before(begin) && taken.Before(begin.Add(k.period))
		}
		if !there {
			bits |= k.bit
		}
	}
	return bits
}

// expired returns those of a file's snapshots, given oldest first, that no kind keeps any more. What was taken by request is none of the schedule's business, nor what is protected.
func expired(s *fsmpb.Schedule, all []*fsmpb.Snapshot) (ids [][]byte) {
	left := map[uint32]uint32{}
	for _, k := range kinds {
		left[k.bit] = k.keep(s)
	}
	for i := len(all) - 1; i >= 0; i-- {
		shot, kept := all[i], false
		for _, k := range kinds {
			if shot.Scheduled&k.bit != 0 && left[k.bit] > 0 {
				left[k.bit]--
				kept = true
			}
		}
		if shot.Scheduled != 0 && !kept && !shot.Protected {
			ids = append(ids, shot.Id)
		}
	}
	return ids
}
