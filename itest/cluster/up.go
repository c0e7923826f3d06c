package cluster

import (
	"context"
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
	u.Process, err = Start(ctx, "up", u.Dir+".log", nil, u.args...)
	return err
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
