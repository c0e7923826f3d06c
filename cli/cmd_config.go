package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"pstorage/cli/print"
	"pstorage/meta/metapb"
)

func (a *app) setConfigCommand() *cobra.Command {
	return &cobra.Command{
		Use: "set-config PARAMETER=VALUE...", Short: "Set parameters of the cluster",
		Long:    "Set parameters of the cluster, from now on; an empty value sets the default again. get-config shows them.",
		Example: "  pstorage -c pcs1 set-config mds.alloc.fill_margin=2\n  pstorage -c pcs1 set-config mds.wd.offline_tout=10min mds.wd.max_offline_cs=3",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("PARAMETER=VALUE is missing")
			}
			set := map[string]string{}
			for _, arg := range args {
				name, value, ok := strings.Cut(arg, "=")
				if !ok {
					return usagef("%q is not PARAMETER=VALUE (example: mds.alloc.fill_margin=2)", arg)
				}
				set[name] = value
			}
			return a.config(cmd, set)
		},
	}
}

func (a *app) getConfigCommand() *cobra.Command {
	return &cobra.Command{
		Use: "get-config", Short: "Show the parameters of the cluster",
		Long:    "Show all parameters of the cluster and their values, defaults where they were not set.",
		Example: "  pstorage -c pcs1 get-config\n  pstorage -c pcs1 get-config --json",
		Args:    exactly(),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.config(cmd, nil) },
	}
}

// config sets parameters, if any, and shows all, or those that were set.
func (a *app) config(cmd *cobra.Command, set map[string]string) error {
	return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
		reply, err := meta.SetConfig(ctx, &metapb.SetConfigRequest{Set: set})
		if err != nil {
			return a.explain("parameters", err)
		}
		shown := reply.GetConfig()
		maps.DeleteFunc(shown, func(name, _ string) bool { _, was := set[name]; return len(set) > 0 && !was })
		return a.show(shown, func(w io.Writer) error {
			rows := [][]string{}
			for _, name := range slices.Sorted(maps.Keys(shown)) {
				rows = append(rows, []string{name, shown[name]})
			}
			if err := print.Table(w, []string{"PARAMETER", "VALUE"}, rows); err != nil {
				return fmt.Errorf("parameters: %w", err)
			}
			return nil
		})
	})
}
