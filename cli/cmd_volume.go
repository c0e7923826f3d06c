package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"pstorage/blockstore/block"
	"pstorage/cli/print"
	"pstorage/cli/size"
	"pstorage/meta/metapb"
)

// volumePath is where a volume lives in the namespace.
func volumePath(name string) (string, error) {
	path := "/" + strings.Trim(name, "/")
	if path == "/" {
		return "", usagef("a volume needs a name")
	}
	return path, nil
}

// parseVolumeSize reads the size of a volume, which is a number of whole sectors.
func parseVolumeSize(text string) (uint64, error) {
	if text == "" {
		return 0, usagef("how large? Give the size with -s, for example: -s 10G")
	}
	n, err := size.Parse(text)
	if err != nil {
		return 0, coded(exitUsage, err)
	}
	if n == 0 || n%block.SectorSize != 0 {
		return 0, usagef("size %s: must be a multiple of %d bytes, and not 0", text, block.SectorSize)
	}
	return n, nil
}

func (a *app) createCommand() *cobra.Command {
	var sizeText string
	var options volumeOptions
	cmd := &cobra.Command{
		Use: "create NAME -s SIZE", Short: "Create a thin volume",
		Long: "Create a volume. It takes no space until it is written to. What is not given is inherited from its folder.",
		Example: `  pstorage -c pcs1 create demo -s 10G
  pstorage -c pcs1 create logs/web -s 1T --replicas 2:1 --chunk-size 16M    # after: mkdir logs`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := volumePath(args[0])
			if err != nil {
				return err
			}
			request := &metapb.CreateRequest{Path: path}
			if request.Size, err = parseVolumeSize(sizeText); err != nil {
				return err
			}
			if request.Attributes, err = options.attributes(); err != nil {
				return err
			}
			return a.create(cmd, request)
		},
	}
	cmd.Flags().StringVarP(&sizeText, "size", "s", "", "`SIZE` of the volume: 512M, 10G, 1T")
	options.flags(cmd)
	return cmd
}

// volumeOptions are the attributes that create takes as flags.
type volumeOptions struct{ replicas, domain, chunkSize, tier string }

func (o *volumeOptions) flags(cmd *cobra.Command) {
	o.inheritedFlags(cmd)
	cmd.Flags().StringVar(&o.chunkSize, "chunk-size", "", "size of the pieces, 1M to 256M")
}

// inheritedFlags are those that a clone has too.
func (o *volumeOptions) inheritedFlags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.replicas, "replicas", "", "copies of the data, `NORM[:MIN]`; with fewer than MIN, writes wait")
	cmd.Flags().StringVar(&o.domain, "failure-domain", "", "what may hold one copy only: disk, host, rack, row or room")
	cmd.Flags().StringVar(&o.tier, "tier", "", "storage tier, 0 to 3")
}

func (o *volumeOptions) attributes() (*metapb.Attributes, error) {
	var pairs []string
	for _, option := range [][2]string{{"replicas", o.replicas}, {"failure-domain", o.domain}, {"chunk-size", o.chunkSize}, {"tier", o.tier}} {
		if option[1] != "" {
			pairs = append(pairs, option[0]+"="+option[1])
		}
	}
	return parseAttributes(pairs)
}

func (a *app) create(cmd *cobra.Command, request *metapb.CreateRequest) error {
	return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
		file, err := meta.Create(ctx, request)
		if err != nil {
			return a.explain("create "+request.Path[1:], err)
		}
		return a.show(print.NewVolume(file), func(w io.Writer) error {
			name := request.Path[1:] + "/"
			if !request.Directory {
				name = request.Path[1:] + ", " + size.Format(file.GetSize())
			}
			_, err := fmt.Fprintf(w, "created %s\n", name)
			return err
		})
	})
}

func (a *app) makeFolderCommand() *cobra.Command {
	var options volumeOptions
	cmd := &cobra.Command{
		Use: "mkdir NAME", Short: "Make a folder for volumes",
		Long:    "Make a folder. What is given holds for all that will be in it, unless a volume has its own.",
		Example: "  pstorage -c pcs1 mkdir logs --replicas 2:1\n  pstorage -c pcs1 create logs/web -s 1T",
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := volumePath(args[0])
			if err != nil {
				return err
			}
			request := &metapb.CreateRequest{Path: path, Directory: true}
			if request.Attributes, err = options.attributes(); err != nil {
				return err
			}
			return a.create(cmd, request)
		},
	}
	options.flags(cmd)
	return cmd
}

func (a *app) listCommand() *cobra.Command {
	var recursive bool
	cmd := &cobra.Command{
		Use: "ls [FOLDER]", Short: "List volumes",
		Example: "  pstorage -c pcs1 ls\n  pstorage -c pcs1 ls -R --json",
		Args:    atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "/" + strings.Trim(strings.Join(args, ""), "/")
			return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
				reply, err := meta.List(ctx, &metapb.ListRequest{Path: path, Recursive: recursive})
				if err != nil {
					return a.explain("list "+path, err)
				}
				volumes := print.NewVolumes(reply.GetFiles())
				return a.show(volumes, func(w io.Writer) error { return print.VolumeTable(w, volumes) })
			})
		},
	}
	cmd.Flags().BoolVarP(&recursive, "recursive", "R", false, "what is in folders too")
	return cmd
}

func (a *app) removeCommand() *cobra.Command {
	var yes, force bool
	cmd := &cobra.Command{
		Use: "rm NAME", Short: "Remove a volume and its data, or an empty folder",
		Long: "Remove a volume and all its data, or an empty folder. It asks first, and refuses while the volume is in use.",
		Example: `  pstorage -c pcs1 rm demo
  pstorage -c pcs1 rm demo --yes      # from a script
  pstorage -c pcs1 rm demo --force    # even if a client has it open: that client gets errors`,
		Args: exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := volumePath(args[0])
			if err != nil {
				return err
			}
			return a.remove(cmd, path, yes || force, force)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "do not ask, and remove even a volume in use")
	return cmd
}

func (a *app) remove(cmd *cobra.Command, path string, confirmed, force bool) error {
	name := path[1:]
	if !confirmed {
		if err := a.confirmRemove(cmd, path); err != nil {
			return err
		}
	}
	return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
		if _, err := meta.Remove(ctx, &metapb.RemoveRequest{Path: path, Force: force}); err != nil {
			return a.explain("remove "+name, err)
		}
		a.say("removed %s", name)
		return nil
	})
}

// confirmRemove shows what would go. The connection is not kept while the question waits for its answer.
func (a *app) confirmRemove(cmd *cobra.Command, path string) error {
	var file *metapb.FileInfo
	err := a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) (err error) {
		file, err = meta.Lookup(ctx, &metapb.LookupRequest{Path: path})
		return a.explain("remove "+path[1:], err)
	})
	if err != nil {
		return err
	}
	if file.GetDirectory() {
		return nil // it goes only if it is empty
	}
	and := ""
	if n := print.NewVolume(file).Snapshots; n > 0 {
		and = fmt.Sprintf(", with %d snapshots", n)
	}
	return a.confirm(fmt.Sprintf("Remove volume %s (%s, %d chunks written%s) and all its data?", path[1:], size.Format(file.GetSize()), file.GetChunks(), and), "--yes (or --force)")
}

func (a *app) resizeCommand() *cobra.Command {
	var sizeText string
	cmd := &cobra.Command{
		Use: "resize NAME -s SIZE", Short: "Enlarge a volume",
		Long:    "Enlarge a volume, in use or not. Front ends that have it open learn of it within seconds.",
		Example: "  pstorage -c pcs1 resize demo -s 20G",
		Args:    exactly("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := volumePath(args[0])
			if err != nil {
				return err
			}
			bytes, err := parseVolumeSize(sizeText)
			if err != nil {
				return err
			}
			return a.withMeta(cmd, func(ctx context.Context, meta metapb.MetaClient) error {
				file, err := meta.Resize(ctx, &metapb.ResizeRequest{Path: path, Size: bytes})
				if err != nil {
					return a.explain("resize "+path[1:], err)
				}
				return a.show(print.NewVolume(file), func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "%s is %s now\n", path[1:], size.Format(file.GetSize()))
					return err
				})
			})
		},
	}
	cmd.Flags().StringVarP(&sizeText, "size", "s", "", "new `SIZE`: 512M, 10G, 1T")
	return cmd
}
