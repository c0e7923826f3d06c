package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"pstorage/cli/daemon"
	"pstorage/cli/print"
	"pstorage/meta/metapb"
	"pstorage/meta/targetpb"
)

// defaultCallTime bounds a command's calls to the metadata servers.
const defaultCallTime = 15 * time.Second

// app is one run of the program: its streams, and the flags that all commands share.
type app struct {
	in           io.Reader
	out, err     io.Writer
	env          func(string) string
	interactive  bool
	readPassword func() ([]byte, error)
	// connect finds the metadata servers; the closer gives the connection up.
	connect func(a *app) (metapb.MetaClient, io.Closer, error)
	// connectTargets is connect for the registry of iSCSI targets.
	connectTargets func(a *app) (targetpb.TargetsClient, io.Closer, error)
	// hold opens volumes that nobody has open, for as long as a snapshot of them is taken.
	hold func(ctx context.Context, a *app, meta metapb.MetaClient, paths []string) (io.Closer, error)

	cluster  string
	servers  []string
	json     bool
	timeout  time.Duration
	insecure bool
	logLevel string
}

// run executes a command line and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	command, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if !errors.Is(err, errSaid) {
		fmt.Fprintf(a.err, "%s: %v\n", command.CommandPath(), err)
	}
	if exitCode(err) == exitUsage {
		fmt.Fprintf(a.err, "See '%s --help'.\n", command.CommandPath())
	}
	return exitCode(err)
}

// prefix is what all absolute paths of configuration and state begin with.
func (a *app) prefix() string { return a.env("PSTORAGE_ROOT") }

// show writes a view as JSON if --json was given, else by text.
func (a *app) show(view any, text func(io.Writer) error) error {
	if a.json {
		return print.JSON(a.out, view)
	}
	return text(a.out)
}

// say writes a sentence for people; programs get nothing but what the exit code says.
func (a *app) say(format string, args ...any) {
	if !a.json {
		fmt.Fprintf(a.out, format+"\n", args...)
	}
}

// withMeta calls f with a client of the metadata servers.
func (a *app) withMeta(cmd *cobra.Command, f func(context.Context, metapb.MetaClient) error) error {
	client, closer, err := a.connect(a)
	if err != nil {
		return err
	}
	defer closer.Close()
	ctx, cancel := context.WithTimeout(cmd.Context(), a.timeout)
	defer cancel()
	return f(ctx, client)
}

// logger writes to standard error.
func (a *app) logger() (*slog.Logger, error) {
	logger, err := daemon.Logger(a.err, a.logLevel)
	if err != nil {
		return nil, usagef("--log-level %q: must be debug, info, warn or error", a.logLevel)
	}
	return logger, nil
}

// needCluster is for commands that write down or look up something under the cluster's name.
func (a *app) needCluster() error {
	if a.cluster == "" {
		return usagef("which cluster? Name it with -c, for example: pstorage -c pcs1 ...")
	}
	return nil
}

// absolute makes a folder's name independent of where the command was started.
func absolute(dir string) (string, error) {
	if dir == "" {
		return "", usagef("which folder? Name it with -r DIR")
	}
	return filepath.Abs(dir)
}

// dataHome is where a user's own data belong.
func (a *app) dataHome() (string, error) {
	if dir := a.env("XDG_DATA_HOME"); dir != "" {
		return filepath.Join(dir, "pstorage"), nil
	}
	if dir := a.env("HOME"); dir != "" {
		return filepath.Join(dir, ".local/share/pstorage"), nil
	}
	return "", usagef("where to keep the data? Name a folder with --data DIR")
}

// makeFolder makes a folder that only its owner may read.
func makeFolder(dir string) error { return os.MkdirAll(dir, 0o700) }

func isFolder(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.IsDir()
}
