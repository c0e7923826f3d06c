package main

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"github.com/spf13/cobra"

	"pstorage/cli/print"
	"pstorage/meta/metapb"
)

func (a *app) statCommand() *cobra.Command {
	return &cobra.Command{
		Use: "stat", Short: "Show the state of the cluster",
		Long: `Show the cluster's health, space, chunks and servers.

  healthy     as many copies as wanted
  degraded    fewer copies than wanted, or a chunk server is missing
  blocked     too few copies to take writes: they wait
  offline     no copy can be read now`,
		Example: "  pstorage -c pcs1 stat\n  pstorage -c pcs1 stat --json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
				reply, err := meta.Status(ctx, &metapb.StatusRequest{})
				if err != nil {
					return a.explain("stat", err)
				}
				view := print.NewStatus(reply)
				return a.show(view, func(w io.Writer) error { return print.StatusText(w, view) })
			})
		},
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Show the version", Example: "  pstorage version --json", Args: exactly(),
		RunE: func(*cobra.Command, []string) error {
			view := struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				System  string `json:"system"`
			}{version, runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
			return a.show(view, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "pstorage %s, %s, %s\n", view.Version, view.Go, view.System)
				return err
			})
		},
	}
}
