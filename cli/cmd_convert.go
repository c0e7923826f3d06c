package main

import (
	"context"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

// volumeMark begins what stands for a volume where a file could stand too.
const volumeMark = "volume:"

func (a *app) convertCommand() *cobra.Command {
	var format string
	var options volumeOptions
	cmd := &cobra.Command{
		Use: "convert volume:VOLUME[@SNAPSHOT] FILE | FILE volume:VOLUME", Short: "Make an image file of a volume, or a volume of an image file",
		Long: `Make an image file (raw, qcow2 or ploop) of a snapshot, or of a volume as it is now, or a new volume of an image file. It needs qemu-img. Neither has its name, or can be opened, before it is
complete; what fails leaves nothing.`,
		Example: `  pstorage -c pcs1 convert volume:demo@monday demo.qcow2
  pstorage -c pcs1 convert golden.qcow2 volume:golden --replicas 3:2
  pstorage -c pcs1 convert volume:demo demo.img --format raw`,
		Args: exactly("FROM", "TO"),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, isFrom := strings.CutPrefix(args[0], volumeMark)
			to, isTo := strings.CutPrefix(args[1], volumeMark)
			if isFrom == isTo {
				return usagef("one of the two must be a volume, as volume:NAME, and the other a file")
			}
			file := args[0]
			if isFrom {
				file = args[1]
			}
			known, err := imageFormat(format, file)
			if err != nil {
				return err
			}
			if isFrom {
				return untilStopped(cmd, func(ctx context.Context) error { return a.convertTo(ctx, cmd, from, file, known) })
			}
			path, err := volumePath(to)
			if err != nil {
				return err
			}
			attributes, err := options.attributes()
			if err != nil {
				return err
			}
			return untilStopped(cmd, func(ctx context.Context) error { return a.convertFrom(ctx, cmd, file, path, known, attributes) })
		},
	}
	cmd.Flags().StringVar(&format, "format", "", "`FORMAT` of the file: raw, qcow2 or ploop (default: by its name, .qcow2, .hds for ploop, else raw)")
	options.flags(cmd)
	return cmd
}

// imageFormat is what qemu-img calls a file's format. It is never found out by looking into the file, which its owner could write so that it names others.
func imageFormat(format, file string) (string, error) {
	if format == "" {
		format = map[string]string{".qcow2": "qcow2", ".hds": "ploop", ".ploop": "ploop"}[filepath.Ext(file)]
	}
	if format == "" {
		format = "raw"
	}
	if known := formats[format]; known != "" {
		return known, nil
	}
	return "", usagef("--format %s: must be raw, qcow2 or ploop", format)
}
