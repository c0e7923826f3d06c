package main

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"pstorage/meta/metapb"
)

// SetSchedule keeps what it is told.
func (f *fakeMeta) SetSchedule(_ context.Context, r *metapb.SetScheduleRequest, _ ...grpc.CallOption) (*metapb.FileInfo, error) {
	file, err := f.find(r.Path)
	if err != nil {
		return nil, err
	}
	if file.Schedule = r.Schedule; r.Schedule.Hourly+r.Schedule.Daily+r.Schedule.Weekly == 0 {
		file.Schedule = nil
	}
	return file, nil
}

func TestSchedulesInTheTerminal(t *testing.T) {
	s := newSession(t)
	s.run("", "create", "demo", "-s", "1G")
	for _, c := range []struct {
		line, says string
		code       int
	}{
		{"snapshot schedule demo", "snapshots of demo: none\n", 0},
		{"snapshot schedule demo hourly=24 weekly=4", "snapshots of demo: hourly=24 weekly=4\n", 0},
		{"get-attr demo", "Snapshots taken: hourly=24 weekly=4\n", 0},
		{"snapshot schedule demo daily=7", "snapshots of demo: daily=7\n", 0},
		{"snapshot schedule demo --json", `"daily": 7`, 0},
		{"snapshot schedule demo none", "snapshots of demo: none\n", 0},
		{"snapshot schedule demo monthly=7", "a schedule is", exitUsage},
		{"snapshot schedule demo daily", "a schedule is", exitUsage},
		{"snapshot schedule demo none daily=1", "a schedule is", exitUsage},
		{"snapshot schedule demo daily=-1", "a schedule is", exitUsage},
		{"snapshot schedule nowhere daily=1", "no such volume", exitNotFound},
		{"snapshot schedule", "VOLUME is missing", exitUsage},
	} {
		if r := s.run("", strings.Fields(c.line)...); r.code != c.code || !strings.Contains(r.out+r.err, c.says) {
			t.Errorf("%s: exit %d, %s%s", c.line, r.code, r.out, r.err)
		}
	}
}
