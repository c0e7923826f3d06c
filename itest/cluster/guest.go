package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"pstorage/itest/ports"
)

// Guest is a virtual machine with a disk of its own (itest/lab/guest). To kill its process is to cut its power: what its kernel had not
// written to the disk is lost.
type Guest struct {
	*Process
	Disk string // its file

	dir  string
	line []string
}

// NewGuest makes a disk in a folder, and says how to boot: script is run in the guest and prints "ready" when it is; options are those of
// the guest script.
func NewGuest(lab, dir, script string, diskBytes int64, options ...string) (*Guest, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	g := &Guest{Disk: filepath.Join(dir, "disk"), dir: dir}
	file, err := os.Create(g.Disk)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	g.line = append([]string{filepath.Join(lab, "guest"), "boot", "-w", dir, "-d", g.Disk}, options...)
	g.line = append(g.line, filepath.Join(lab, script))
	return g, file.Truncate(diskBytes)
}

// Boot switches it on and waits until it is ready. enter is what the command line begins with.
func (g *Guest) Boot(ctx context.Context, enter ...string) (err error) {
	if g.Process, err = prepare("guest", filepath.Join(g.dir, "log"), nil, append(enter, g.line...)...); err != nil {
		return err
	}
	return g.Process.boot(ctx, g.dir)
}

// boot begins a guest that keeps its things in a folder, and waits until it is ready; what its console shows comes with an error.
func (p *Process) boot(ctx context.Context, dir string) error {
	p.patience = bootTime
	if err := p.begin(ctx); err != nil {
		console, _ := os.ReadFile(filepath.Join(dir, "console"))
		return fmt.Errorf("%w\n%s", err, console)
	}
	return nil
}

// Forward is the option that leads a free port here to one in the guest, and the address here.
func Forward(guestPort int) (options []string, address string, err error) {
	port, err := ports.Free()
	return []string{"-p", fmt.Sprintf("%d:%d", port, guestPort)}, "127.0.0.1:" + strconv.Itoa(port), err
}
