package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// root is the whole tree of commands.
func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   programName,
		Short: "Replicated block storage: volumes over NBD and iSCSI",
		Long: `pstorage keeps thin volumes in a cluster of chunk servers, several copies of each piece,
and serves them over NBD and iSCSI.

Try it:      pstorage up
Then:        pstorage ls; pstorage stat

` + exitCodesHelp,
		Example:       "  pstorage up --data ./data\n  pstorage -c pcs1 -b 127.0.0.1 stat",
		SilenceErrors: true, SilenceUsage: true,
		Args: a.unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := root.PersistentFlags()
	flags.StringVarP(&a.cluster, "cluster", "c", "", "name of the `CLUSTER`")
	flags.StringSliceVarP(&a.servers, "mds", "b", nil, "metadata servers, `HOST[:PORT]`; several apart by commas (default: the cluster's bs.list)")
	flags.BoolVar(&a.json, "json", false, "print JSON")
	flags.DurationVar(&a.timeout, "timeout", defaultCallTime, "how long to wait for the metadata servers")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return coded(exitUsage, err) })
	root.AddCommand(a.commands()...)
	return root
}

func (a *app) commands() []*cobra.Command {
	return []*cobra.Command{
		a.upCommand(),
		a.makeMDSCommand(), a.mdsdCommand(), a.removeMDSCommand(), a.makeCSCommand(), a.csdCommand(), a.configureCSCommand(), a.removeCSCommand(), a.targetdCommand(),
		a.createCommand(), a.makeFolderCommand(), a.listCommand(), a.removeCommand(), a.resizeCommand(), a.setAttrCommand(), a.getAttrCommand(), a.quotaCommand(),
		a.setConfigCommand(), a.getConfigCommand(), a.snapshotCommand(), a.exportCommand(), a.importCommand(), a.checkExportCommand(), a.convertCommand(), a.cloneCommand(), a.flattenCommand(), a.iscsiCommand(), a.nbdCommand(),
		a.statCommand(), a.listServicesCommand(),
		a.csCheckCommand(), a.csDumpCommand(), a.mdsDumpCommand(), a.mdsRecoverCommand(),
		a.versionCommand(), a.benchTargetCommand(),
	}
}

// unknownCommand is what the bare program's arguments are: a name that no command has.
func (a *app) unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	message := fmt.Sprintf("there is no command %q", args[0])
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		message += "; did you mean " + strings.Join(near, ", ") + "?"
	}
	return usagef("%s", message)
}

// exactly wants the arguments named.
func exactly(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef("%s is missing", names[len(args)])
		case len(args) > len(names):
			return usagef("unexpected argument %q", args[len(names)])
		}
		return nil
	}
}

// atMost takes up to n arguments.
func atMost(n int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > n {
			return usagef("unexpected argument %q", args[n])
		}
		return nil
	}
}

// daemonFlags are those of every command that listens.
func (a *app) daemonFlags(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.insecure, "insecure-network", false, "listen on, and connect to, addresses other than loopback, although nothing is encrypted or authenticated yet")
	cmd.Flags().StringVar(&a.logLevel, "log-level", "info", "least important lines to log: debug, info, warn, error")
}
