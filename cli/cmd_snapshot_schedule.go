package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"pstorage/cli/print"
	"pstorage/meta/metapb"
)

func (a *app) snapshotScheduleCommand() *cobra.Command {
	return &cobra.Command{
		Use: "schedule VOLUME [hourly=N] [daily=N] [weekly=N]", Short: "Take snapshots of a volume by themselves, and keep so many",
		Long: `Have the cluster take snapshots of a volume each hour, day or week, and keep the newest N of each; "none" ends that, and lets those stay that there are. What is not named is not
taken. Periods begin with the hour, the day and Monday, in UTC. A volume that nobody has opened since the last one gets no other.`,
		Example: `  pstorage -c pcs1 snapshot schedule demo hourly=24 daily=7 weekly=4
  pstorage -c pcs1 snapshot schedule demo
  pstorage -c pcs1 snapshot schedule demo none`,
		Args: atLeastOne("VOLUME"), ValidArgsFunction: a.completeVolumes,
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := volumePath(args[0])
			if err != nil {
				return err
			}
			schedule, err := parseSchedule(args[1:])
			if err != nil {
				return err
			}
			return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) (err error) {
				var f *metapb.FileInfo
				if schedule == nil {
					f, err = meta.Lookup(ctx, &metapb.LookupRequest{Path: path})
				} else {
					f, err = meta.SetSchedule(ctx, &metapb.SetScheduleRequest{Path: path, Schedule: schedule})
				}
				if err != nil {
					return a.explain("schedule snapshots of "+path[1:], err)
				}
				view := print.NewVolume(f)
				return a.show(view, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "snapshots of %s: %s\n", view.Name, view.Schedule)
					return err
				})
			})
		},
	}
}

// parseSchedule reads hourly=N daily=N weekly=N, or none; nil: nothing was said.
func parseSchedule(words []string) (*metapb.Schedule, error) {
	if len(words) == 0 {
		return nil, nil
	}
	s := &metapb.Schedule{}
	if len(words) == 1 && words[0] == "none" {
		return s, nil
	}
	lines := map[string]*uint32{"hourly": &s.Hourly, "daily": &s.Daily, "weekly": &s.Weekly}
	for _, word := range words {
		name, text, _ := strings.Cut(word, "=")
		n, err := strconv.ParseUint(text, 10, 16)
		if lines[name] == nil || err != nil {
			return nil, usagef("%q: a schedule is hourly=N, daily=N, weekly=N, or none", word)
		}
		*lines[name] = uint32(n)
	}
	return s, nil
}
