package cluster

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"pstorage/itest/ports"
)

// Up is `pstorage up` in a process.
type Up struct {
	*Process
	Dir, Binary string
	mds         string
	args        []string
}

// StartUp runs `pstorage up` on a folder, with free ports and further arguments. Its log is beside the folder.
func StartUp(ctx context.Context, binary, dir string, args ...string) (*Up, error) {
	mds, err := ports.FreePair()
	if err != nil {
		return nil, err
	}
	u := &Up{Dir: dir, Binary: binary, mds: mds}
	u.args = append([]string{binary, "up", "--data", dir, "--nbd", "127.0.0.1:0", "--iscsi", "127.0.0.1:0", "--mds", mds}, args...)
	return u, u.Again(ctx)
}

// Again starts it anew on the same folder.
func (u *Up) Again(ctx context.Context) (err error) {
	u.Process, err = Start(ctx, "up", u.Log(), nil, u.args...)
	if at := slices.Index(u.args, "--metrics"); at >= 0 && u.Process != nil {
		u.metrics = u.args[at+1]
	}
	return err
}

// Log is the file that it logs to.
func (u *Up) Log() string { return u.Dir + ".log" }

// Run runs one of pstorage's commands on the cluster, with something to read, and returns what it printed.
func (u *Up) Run(ctx context.Context, input string, args ...string) (string, error) {
	command := exec.CommandContext(ctx, u.Binary, append([]string{"-b", u.mds}, args...)...)
	command.Stdin = strings.NewReader(input)
	out, err := command.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("pstorage %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// MDS is the address of the metadata server.
func (u *Up) MDS() string { return u.mds }

// NBD is the URI of a volume.
func (u *Up) NBD(volume string) string { return u.way("nbd", "/"+volume) }

// ISCSI is the URL of a volume.
func (u *Up) ISCSI(volume string) string { return u.way("iscsi://", ":"+volume+"/1") }

// Paths are the URLs of a volume through all portals.
func (u *Up) Paths(volume string) (urls []string) {
	for _, way := range u.Ways {
		if strings.HasPrefix(way, "iscsi://") && strings.HasSuffix(way, ":"+volume+"/1") {
			urls = append(urls, way)
		}
	}
	return urls
}

// way finds the line of a volume; the NBD URI of a unix socket has the socket after the name.
func (u *Up) way(scheme, end string) string {
	for _, way := range u.Ways {
		if name, _, _ := strings.Cut(way, "?"); strings.HasPrefix(way, scheme) && strings.HasSuffix(name, end) {
			return way
		}
	}
	return ""
}
