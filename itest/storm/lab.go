// Package storm treats a target as the worst of networks and initiators do: login storms, logins left half way, connections dropped in the
// middle of transfers, aborts and resets under load, slow readers, garbage. Data are verified meanwhile, and afterwards the process must
// hold no more than before.
//
// # DESIGN
//
// Invariants of what is verified (Region): a sector has what was last acknowledged, or what a write may have left that was aborted, cut off
// or not answered since. A write counts as ended when its answer is here, when a task management function that aborts it was
// answered, or when its session was reinstated: the target promises that it touches nothing later. What is read once stays.
//
// Goroutines: one per initiator, which owns its session, its region and its random numbers; they share counters only (Counts, atomic).
package storm

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"pstorage/itest/cluster"
	"pstorage/itest/iscsi"
	"pstorage/itest/ports"
)

const (
	prefix  = "iqn.2014-04.com.pstorage:"
	secret  = "secret-of-the-host"
	ours    = "secret-of-the-target"
	trash   = "trash" // a volume that garbage may reach
	lunSize = 64 << 20
	luns    = 4
	// patience bounds each thing that an initiator waits for. It is no measure of speed: what takes so long hangs.
	patience = time.Minute
)

// door is a way in: where, and what an initiator says there.
type door struct {
	address string
	options iscsi.Options
}

// as is what an initiator of a name and session number says.
func (d door) as(name string, isid byte) iscsi.Options {
	o := d.options
	o.Initiator, o.ISID = "iqn.2014-04.com.example:"+name, isid
	return o
}

// Lab is a cluster in one process with targets: an open one with several LUNs, one behind CHAP, and a volume for garbage.
type Lab struct {
	*cluster.Up
	open, guarded, trash door
}

// NewLab starts it in a folder.
func NewLab(ctx context.Context, binary, dir string) (*Lab, error) {
	port, err := ports.Free()
	if err != nil {
		return nil, err
	}
	u, err := cluster.StartUp(ctx, binary, filepath.Join(dir, "data"), "--volume", trash+"=64M", "--metrics", ports.Local(port))
	if err != nil {
		return nil, err
	}
	l := &Lab{Up: u}
	if err := l.furnish(ctx); err != nil {
		_, stopErr := u.Stop()
		return nil, errors.Join(err, stopErr)
	}
	return l, nil
}

func (l *Lab) furnish(ctx context.Context) (err error) {
	for user, secret := range map[string]string{"host": secret, "us": ours} {
		if _, err := l.Run(ctx, secret+"\n", "iscsi", "account-create", "-u", user); err != nil {
			return err
		}
	}
	if l.open, err = l.target(ctx, "open", "127.0.0.1", luns); err != nil {
		return err
	}
	if l.guarded, err = l.target(ctx, "guarded", "127.0.0.2", 1, "-u", "host", "-m", "us"); err != nil {
		return err
	}
	l.guarded.options.User, l.guarded.options.Secret = "host", secret
	where, _, _ := strings.Cut(strings.TrimPrefix(l.ISCSI(trash), "iscsi://"), "/")
	l.trash = door{address: where, options: iscsi.Options{Target: prefix + trash}}
	return nil
}

// target makes and starts one. Its address is no other target's.
func (l *Lab) target(ctx context.Context, name, ip string, luns int, options ...string) (d door, err error) {
	port, err := ports.Free()
	if err != nil {
		return d, err
	}
	d = door{address: net.JoinHostPort(ip, strconv.Itoa(port)), options: iscsi.Options{Target: prefix + name}}
	steps := [][]string{append([]string{"create", "-n", name, "-a", d.address}, options...)}
	for i := range luns {
		steps = append(steps, []string{"lun-add", "-t", name, "-l", strconv.Itoa(i), "-s", strconv.Itoa(lunSize)})
	}
	steps = append(steps, []string{"start", "-t", name, "--wait", patience.String()})
	for _, step := range steps {
		if _, err := l.Run(ctx, "", append([]string{"iscsi"}, step...)...); err != nil {
			return d, err
		}
	}
	return d, nil
}

// complaint is what a log must not have: the race detector's reports, panics, and the target's own errors.
var complaint = regexp.MustCompile(`DATA RACE|panic:|fatal error:|level=ERROR`)

// Complaints returns an error if the log of the process has any.
func (l *Lab) Complaints() error {
	text, err := os.ReadFile(l.Log())
	if err != nil {
		return err
	}
	lines := strings.Split(string(text), "\n")
	for i, line := range lines {
		if complaint.MatchString(line) {
			return fmt.Errorf("in its log, line %d:\n%s", i+1, strings.Join(lines[i:min(len(lines), i+40)], "\n"))
		}
	}
	return nil
}
