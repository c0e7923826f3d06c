package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"pstorage/itest/cluster"
)

// iscsiDocs is what recommends settings: they are what is judged.
const iscsiDocs = "docs/iscsi.md"

// guestImage makes the guest's image where there is none yet, before the first boot: a guest has to be ready soon, and two of them
// would both make it.
func guestImage(ctx context.Context) error {
	if out, err := exec.CommandContext(ctx, guestScript, "image").CombinedOutput(); err != nil {
		return fmt.Errorf("guest's image: %w: %s", err, out)
	}
	return nil
}

// bootShell boots a guest that runs commands one at a time; it is in a folder with its name.
func (j *judge) bootShell(ctx context.Context, enter []string, name, script string, options ...string) (*cluster.Shell, error) {
	return cluster.BootShell(ctx, enter, labFolder, filepath.Join(j.dir, name), script, options...)
}

// stopProcess ends it, besides what has gone wrong already.
func stopProcess(p *cluster.Process, err error) error {
	_, stopErr := p.Stop()
	return errors.Join(err, stopErr)
}

// recommended writes the first example below a heading of the documentation to a file.
func recommended(heading, path string) error {
	text, err := os.ReadFile(iscsiDocs)
	if err != nil {
		return err
	}
	_, below, _ := strings.Cut(string(text), "\n"+heading+"\n")
	var example strings.Builder
	for line := range strings.Lines(below) {
		isExample := strings.HasPrefix(line, "    ")
		if isExample {
			example.WriteString(line)
		} else if example.Len() > 0 {
			break
		}
	}
	if example.Len() == 0 {
		return fmt.Errorf("%s has no example below %q", iscsiDocs, heading)
	}
	return os.WriteFile(path, []byte(example.String()), 0o644)
}
