package main

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"pstorage/cli/print"
	"pstorage/meta/metapb"
)

func (a *app) setAttrCommand() *cobra.Command {
	return &cobra.Command{
		Use: "set-attr NAME ATTRIBUTE=VALUE...", Short: "Set attributes of a volume or folder",
		Long: `Set attributes. What a folder has is inherited by everything in it that has not its own.

  replicas=NORM[:MIN]        copies of the data; with fewer than MIN, writes wait (3 means 3:2)
  failure-domain=disk|host   what may hold one copy only
  chunk-size=1M...256M       of volumes created in a folder; fixed once a volume exists
  tier=0...3                 which chunk servers are preferred`,
		Example: "  pstorage -c pcs1 set-attr demo replicas=3:2\n  pstorage -c pcs1 set-attr / failure-domain=disk",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 2 {
				return usagef("NAME and at least one ATTRIBUTE=VALUE are needed")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			attributes, err := parseAttributes(args[1:])
			if err != nil {
				return err
			}
			return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
				file, err := meta.SetAttributes(ctx, &metapb.SetAttributesRequest{Path: namespacePath(args[0]), Attributes: attributes})
				if err != nil {
					return a.explain("set attributes of "+args[0], err)
				}
				return a.showAttributes(file)
			})
		},
	}
}

func (a *app) getAttrCommand() *cobra.Command {
	return &cobra.Command{
		Use: "get-attr NAME", Short: "Show attributes of a volume or folder",
		Example: "  pstorage -c pcs1 get-attr demo\n  pstorage -c pcs1 get-attr /",
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
				file, err := meta.Lookup(ctx, &metapb.LookupRequest{Path: namespacePath(args[0])})
				if err != nil {
					return a.explain("get attributes of "+args[0], err)
				}
				return a.showAttributes(file)
			})
		},
	}
}

// namespacePath takes volumes and folders, the root too.
func namespacePath(name string) string { return "/" + strings.Trim(name, "/") }

func (a *app) showAttributes(file *metapb.FileInfo) error {
	volume := print.NewVolume(file)
	return a.show(volume, func(w io.Writer) error { return print.VolumeAttributes(w, volume) })
}
