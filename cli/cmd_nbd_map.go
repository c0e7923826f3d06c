package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"pstorage/cli/daemon"
	"pstorage/target/nbd/attach"
)

const (
	// defaultPatience is how long a mapped disk's requests wait for a server.
	defaultPatience = 10 * time.Minute
	// mostConnections of a disk.
	mostConnections = 64
)

// mapOptions are what map was told.
type mapOptions struct {
	servers     serversFlag
	connections int
	patience    time.Duration
	foreground  bool
}

func (a *app) mapCommand() *cobra.Command {
	var o mapOptions
	cmd := &cobra.Command{
		Use: "map VOLUME[@SNAPSHOT] [--server ADDR] [--connections N]", Short: "Make a volume a disk of this host",
		Long: `Make a volume a disk of this host and print its name. A process is left behind that sees to its connections; what it has to say is in
` + attach.DefaultFolder + `/VOLUME.log. If that process has ended, map the volume again: the disk stays as it is, and is looked after anew.

For a disk at every boot use the unit pstorage-nbd@.service, which runs it in the foreground.`,
		Example: `  pstorage-nbd map demo
  pstorage-nbd map demo --server 10.0.0.1:10809,10.0.0.2:10809 --insecure-network --connections 4`,
		Args: exactly("VOLUME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(a); err != nil {
				return err
			}
			name := strings.Trim(args[0], "/")
			if name == "" {
				return usagef("a volume needs a name")
			}
			if o.foreground {
				return a.keepMapped(cmd.Context(), name, o)
			}
			return a.mapInBackground(cmd.Context(), name)
		},
	}
	o.servers.add(cmd)
	flags := cmd.Flags()
	flags.IntVar(&o.connections, "connections", min(4, runtime.NumCPU()), "how many connections the disk has, if the server allows several")
	flags.DurationVar(&o.patience, "dead-timeout", defaultPatience, "how long the disk's requests wait when no server can be reached; then they fail")
	flags.BoolVar(&o.foreground, "foreground", false, "stay until the disk is unmapped")
	flags.StringVar(&a.logLevel, "log-level", "info", "least important lines to log: debug, info, warn, error")
	return cmd
}

func (o *mapOptions) check(a *app) error {
	switch {
	case o.connections < 1 || o.connections > mostConnections:
		return usagef("--connections %d: must be 1 to %d", o.connections, mostConnections)
	case o.patience < time.Second:
		return usagef("--dead-timeout %v: must be at least 1s", o.patience)
	}
	return o.servers.check(a)
}

// keepMapped maps a volume and stays.
func (a *app) keepMapped(ctx context.Context, name string, o mapOptions) error {
	h, err := kernelHost()
	if err != nil {
		return err
	}
	logger, err := a.logger()
	if err != nil {
		return err
	}
	ctx, stop := daemon.UntilSignal(ctx)
	defer stop()
	m := attach.Mapping{Volume: name, Servers: o.servers.addresses, Connections: o.connections, Patience: o.patience, Log: logger}
	return mapError(h.Map(ctx, m, func(r attach.Record) {
		fmt.Fprintln(a.out, r.Device)
		if err := daemon.Notify(a.env("NOTIFY_SOCKET"), "READY=1"); err != nil {
			logger.Warn("the service manager was not told", "error", err)
		}
	}))
}

// mapInBackground starts this program anew, in the foreground of a session of its own, and waits until it has mapped the volume.
func (a *app) mapInBackground(ctx context.Context, name string) error {
	if err := os.MkdirAll(attach.DefaultFolder, 0o755); err != nil {
		return err
	}
	path := filepath.Join(attach.DefaultFolder, url.PathEscape(name)+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	begun, err := log.Seek(0, 2)
	if err != nil {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	keeper := exec.CommandContext(ctx, program, append(arguments(os.Args), "--foreground")...)
	keeper.Args[0] = programName
	keeper.Stderr, keeper.Dir, keeper.SysProcAttr = log, "/", &syscall.SysProcAttr{Setsid: true}
	out, err := keeper.StdoutPipe()
	if err != nil {
		return err
	}
	if err := keeper.Start(); err != nil {
		return err
	}
	device, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return a.failedToMap(keeper, path, begun)
	}
	if a.json {
		return a.show(map[string]any{"device": strings.TrimSpace(device), "keeper": keeper.Process.Pid}, nil)
	}
	fmt.Fprint(a.out, device)
	return keeper.Process.Release()
}

// failedToMap passes on what the keeper has said, and its exit code.
func (a *app) failedToMap(keeper *exec.Cmd, log string, begun int64) error {
	var ended *exec.ExitError
	if err := keeper.Wait(); !errors.As(err, &ended) {
		return errors.Join(errors.New("the disk's keeper has ended"), err)
	}
	f, err := os.Open(log)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(a.err, io.NewSectionReader(f, begun, 1<<20)); err != nil {
		return err
	}
	return coded(ended.ExitCode(), errSaid)
}
