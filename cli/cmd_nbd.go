package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"

	"github.com/spf13/cobra"

	"pstorage/cli/daemon"
	"pstorage/cli/print"
	"pstorage/target/nbd"
	"pstorage/target/nbd/attach"
)

// localNBD is where targetd serves NBD if it is told nothing else.
const localNBD = "127.0.0.1:10809"

// serversFlag says where NBD is served.
type serversFlag struct{ addresses []string }

func (f *serversFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&f.addresses, "server", []string{localNBD}, "NBD server, `ADDR`: HOST:PORT or unix:PATH; several apart by commas, the first that answers is used")
}

func (f *serversFlag) check(a *app) error {
	if len(f.addresses) == 0 {
		return usagef("--server: where is NBD served?")
	}
	for _, address := range f.addresses {
		if path, ok := strings.CutPrefix(address, "unix:"); ok && path != "" {
			continue
		}
		if err := daemon.CheckAddress(address, a.insecure); err != nil {
			return coded(exitUsage, err)
		}
	}
	return nil
}

func (a *app) nbdCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "nbd", Short: "Make volumes disks of this Linux host, and say what is exported over NBD",
		Long: `Say what is exported over NBD, and to whom (export, unexport, exports).

Make volumes that are served over NBD disks of this host, /dev/nbdN, by the Linux kernel's own client. Needs root and the kernel's nbd module.

A process stays with each disk and connects it anew, to any of the servers named, when a server is restarted, moves or is cut off. The disk's requests
wait meanwhile, and none is lost. The link /dev/pstorage/VOLUME leads to the disk.

The connections are not encrypted: the kernel's client cannot. Serve NBD on a unix socket of the same host, or on a network that is trusted.`,
		Example: `  pstorage-nbd map demo
  mkfs.ext4 /dev/pstorage/demo
  pstorage-nbd list
  pstorage-nbd unmap demo`,
		Args: a.unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.PersistentFlags().BoolVar(&a.insecure, "insecure-network", false, "connect to addresses other than loopback, although nothing is encrypted or authenticated")
	cmd.AddCommand(a.mapCommand(), a.unmapCommand(), a.listMappedCommand(), a.listExportsCommand(), a.nbdExportCommand(), a.nbdUnexportCommand(), a.nbdExportsCommand())
	return cmd
}

// kernelHost is this machine, whose kernel maps volumes; the module is loaded if need be.
func kernelHost() (*attach.Host, error) {
	kernel, err := attach.OpenNetlink()
	if errors.Is(err, attach.ErrNoModule) && exec.Command("modprobe", "nbd").Run() == nil {
		kernel, err = attach.OpenNetlink()
	}
	if err != nil {
		return nil, err
	}
	return &attach.Host{Kernel: kernel, Sysfs: attach.DefaultSysfs, Dev: attach.DefaultDev, Folder: attach.DefaultFolder, Links: attach.DefaultLinks}, nil
}

// mapError gives errors of mapping the exit code that goes with them.
func mapError(err error) error {
	switch {
	case errors.Is(err, attach.ErrNotMapped), errors.Is(err, nbd.ErrNoExport):
		return coded(exitNotFound, err)
	case errors.Is(err, attach.ErrMapped), errors.Is(err, attach.ErrInUse):
		return coded(exitRefused, err)
	}
	return err
}

func (a *app) unmapCommand() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "unmap VOLUME|DEVICE", Short: "Take a mapped volume's disk away",
		Long: `Flush a mapped volume's disk and take it away. This is refused while it is mounted, or a program has it open exclusively; with --force it is not, nothing is flushed,
and whoever uses it gets I/O errors.`,
		Example: "  pstorage-nbd unmap demo\n  pstorage-nbd unmap /dev/nbd0",
		Args:    exactly("VOLUME or DEVICE"), ValidArgsFunction: completeMapped,
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := kernelHost()
			if err != nil {
				return err
			}
			s, err := h.Unmap(cmd.Context(), args[0], force)
			if err != nil {
				return mapError(err)
			}
			a.say("%s is not mapped to %s any more.", s.Volume, s.Device)
			return nil
		},
	}
	cmd.Flags().BoolVar(&force, "force", false, "although it is in use, and without flushing it")
	return cmd
}

// completeMapped offers the volumes that are mapped.
func completeMapped(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	h, err := kernelHost()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	all, _ := h.List()
	var names []string
	for _, s := range all {
		names = append(names, s.Volume)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) listMappedCommand() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the volumes that are disks of this host",
		Long: `List the volumes that are disks of this host. KEEPER is the process that sees to a disk's connections; a disk without one works on for as long as
its connections last: map the volume again.`,
		Example: "  pstorage-nbd list",
		Args:    exactly(),
		RunE: func(*cobra.Command, []string) error {
			h, err := kernelHost()
			if err != nil {
				return err
			}
			all, err := h.List()
			if err != nil {
				return err
			}
			return a.show(print.Mapped(all), func(w io.Writer) error { return print.MappedTable(w, all) })
		},
	}
}

func (a *app) listExportsCommand() *cobra.Command {
	var servers serversFlag
	cmd := &cobra.Command{
		Use: "list-exports [--server ADDR]", Short: "List what an NBD server exports",
		Long:    "List the volumes that an NBD server exports. It needs neither root nor the kernel's module.",
		Example: "  pstorage-nbd list-exports --server unix:/run/pstorage/nbd.sock",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := servers.check(a); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
			defer cancel()
			all, err := firstExports(ctx, servers.addresses)
			if err != nil {
				return coded(exitUnreachable, err)
			}
			return a.show(print.Exports(all), func(w io.Writer) error { return print.ExportTable(w, all) })
		},
	}
	servers.add(cmd)
	return cmd
}

// firstExports lists those of the first server that answers.
func firstExports(ctx context.Context, servers []string) ([]nbd.Export, error) {
	var errs []error
	for _, server := range servers {
		all, err := nbd.Exports(ctx, server)
		if err == nil {
			return all, nil
		}
		errs = append(errs, err)
	}
	return nil, fmt.Errorf("exports: %w", errors.Join(errs...))
}
