package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"pstorage/cli/print"
	"pstorage/cli/size"
	"pstorage/meta/metapb"
)

func (a *app) quotaCommand() *cobra.Command {
	return &cobra.Command{
		Use: "quota FOLDER [SIZE | none]", Short: "Limit the sizes of all volumes below a folder together",
		Long: `Limit the sizes of all volumes below a folder together, whatever they take on the disks; "none" ends that. Clones count with their whole size, snapshots not at all. What would not fit
into the quotas of all folders it is in is refused; what is there already stays. Without SIZE, show the quotas that hold.`,
		Example: `  pstorage -c pcs1 quota logs 10T
  pstorage -c pcs1 quota logs
  pstorage -c pcs1 quota / none`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) < 1 || len(args) > 2 {
				return usagef("FOLDER is needed, and SIZE or none to set its quota")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			limit, err := parseQuota(args[1:])
			if err != nil {
				return err
			}
			path := namespacePath(args[0])
			return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) (err error) {
				var f *metapb.FileInfo
				if len(args) == 1 {
					f, err = meta.Lookup(ctx, &metapb.LookupRequest{Path: path})
				} else {
					f, err = meta.SetQuota(ctx, &metapb.SetQuotaRequest{Path: path, Limit: limit})
				}
				if err != nil {
					return a.explain("quota of "+path, err)
				}
				return a.showQuotas(path, f)
			})
		},
	}
}

// parseQuota reads SIZE, or none: 0.
func parseQuota(words []string) (uint64, error) {
	if len(words) == 0 || words[0] == "none" {
		return 0, nil
	}
	n, err := size.Parse(words[0])
	if err != nil {
		return 0, coded(exitUsage, err)
	}
	if n == 0 {
		return 0, usagef("a quota of 0: it has to be more, or none")
	}
	return n, nil
}

func (a *app) showQuotas(path string, f *metapb.FileInfo) error {
	view := struct {
		Name   string        `json:"name"`
		Quotas []print.Quota `json:"quotas"` // the nearest first
	}{path, append([]print.Quota{}, print.NewVolume(f).Quotas...)}
	return a.show(view, func(w io.Writer) error {
		if len(view.Quotas) == 0 {
			a.say("no quota holds for %s", path)
			return nil
		}
		return print.QuotaTable(w, view.Quotas)
	})
}
