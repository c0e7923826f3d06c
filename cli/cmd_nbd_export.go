package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/cli/print"
	"pstorage/meta/metapb"
)

// nbdExportFlags are those of export.
type nbdExportFlags struct {
	as           string
	readOnly     bool
	hosts, whoms []string
}

func (a *app) nbdExportCommand() *cobra.Command {
	var flags nbdExportFlags
	cmd := &cobra.Command{
		Use: "export VOLUME[@SNAPSHOT] [--as NAME] [--to CLIENT,...] [--on HOST,...] [--read-only]", Short: "Say what is exported over NBD: where, and to whom",
		Long: `Export a volume, or a snapshot, over NBD: under a name, by the front ends of some hosts alone, to some clients alone. It holds for connections made from then on; given
again for the same name and volume, it takes the place of what was said before.

A volume that is exported so is served in no other way, nor are its snapshots: these are the exports NAME@SNAPSHOT, for the same clients. Volumes that no export is of are served by
their names to everybody who can reach the server, unless targetd was started with --nbd-only-exports. ISCSI is not concerned.

A CLIENT is cert:NAME, who has shown a certificate of that name; an address, or a range of them, as 10.0.0.0/24; or unix, who comes through a unix socket.`,
		Example: `  pstorage nbd export demo --to cert:guest1
  pstorage nbd export db/data@nightly --as backup --to 10.0.0.7,unix --on host2`,
		Args: exactly("VOLUME"), ValidArgsFunction: a.completeVolumes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
				request, err := a.nbdExportOf(ctx, meta, args[0])
				if err != nil {
					return err
				}
				request.Name = strings.Trim(args[0], "/")
				if flags.as != "" {
					request.Name = flags.as
				}
				request.ReadOnly, request.Hosts, request.Clients = flags.readOnly || request.Snapshot != "", flags.hosts, flags.whoms
				made, err := meta.SetExport(ctx, &metapb.SetExportRequest{Export: request})
				if err != nil {
					return explainNBDExport(a.explain("export "+request.Name, err), err)
				}
				view := print.NewChosen(made)
				return a.show(view, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "exported %s as %s\n", view.Of(), view.Name)
					return err
				})
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&flags.as, "as", "", "`NAME` of the export (default: that of the volume)")
	f.BoolVar(&flags.readOnly, "read-only", false, "nobody writes to the volume through it")
	f.StringSliceVar(&flags.hosts, "on", nil, "`HOST` whose front end serves it, by name or identity; several apart by commas (default: all)")
	f.StringSliceVar(&flags.whoms, "to", nil, "`CLIENT` that it is for; several apart by commas (default: all)")
	return cmd
}

// nbdExportOf begins an export with what it is of; a volume whose name has an "@" comes before a snapshot.
func (a *app) nbdExportOf(ctx context.Context, meta metapb.MetaClient, name string) (*metapb.Export, error) {
	path, err := volumePath(name)
	if err != nil {
		return nil, err
	}
	_, err = meta.Lookup(ctx, &metapb.LookupRequest{Path: path})
	switch {
	case err == nil:
		return &metapb.Export{Path: path}, nil
	case status.Code(err) != codes.NotFound || !strings.Contains(name, "@"):
		return nil, a.explain(name, err)
	}
	s, err := a.findSnapshot(ctx, meta, name)
	if err != nil {
		return nil, err
	}
	view := print.NewSnapshot(s)
	return &metapb.Export{Path: s.GetPath(), Snapshot: strings.TrimPrefix(view.At(), view.Volume+"@")}, nil
}

// explainNBDExport keeps what the metadata servers say of what they refuse.
func explainNBDExport(explained, err error) error {
	switch status.Code(err) {
	case codes.AlreadyExists:
		return coded(exitRefused, fmt.Errorf("%s; unexport it first, or give another name with --as", status.Convert(err).Message()))
	case codes.NotFound:
		return coded(exitNotFound, fmt.Errorf("%s", status.Convert(err).Message()))
	}
	return explained
}

func (a *app) nbdUnexportCommand() *cobra.Command {
	return &cobra.Command{
		Use: "unexport NAME", Short: "Take an export back",
		Long: `Take an export back. Connections that there are go on: they end when the client, or the server, does. If no other export is of the volume, it is served by its own name
to everybody again, unless targetd was started with --nbd-only-exports.`,
		Example: "  pstorage nbd unexport backup",
		Args:    exactly("NAME"), ValidArgsFunction: a.completeNBDExports,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
				if _, err := meta.DeleteExport(ctx, &metapb.DeleteExportRequest{Name: args[0]}); err != nil {
					return explainNBDExport(a.explain("unexport "+args[0], err), err)
				}
				a.say("%s is not exported any more.", args[0])
				return nil
			})
		},
	}
}

func (a *app) nbdExportsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "exports", Short: "List what is exported, where, and to whom",
		Long:    "List what the cluster has on record as exported over NBD. What one server serves, to this host, is listed by list-exports.",
		Example: "  pstorage nbd exports\n  pstorage nbd exports --json",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
				reply, err := meta.ListExports(ctx, &metapb.ListExportsRequest{})
				if err != nil {
					return a.explain("list exports", err)
				}
				views := print.NewChosenList(reply.GetExports())
				return a.show(views, func(w io.Writer) error { return print.ChosenTable(w, views) })
			})
		},
	}
}

// completeNBDExports offers the exports there are.
func (a *app) completeNBDExports(cmd *cobra.Command, args []string, _ string) (names []string, _ cobra.ShellCompDirective) {
	a.timeout = completeTime
	_ = a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
		reply, err := meta.ListExports(ctx, &metapb.ListExportsRequest{})
		for _, e := range reply.GetExports() {
			if len(args) == 0 {
				names = append(names, e.GetName())
			}
		}
		return err
	})
	return names, cobra.ShellCompDirectiveNoFileComp
}
