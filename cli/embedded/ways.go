package embedded

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"pstorage/meta/metapb"
	"pstorage/target/iscsi"
	"pstorage/target/nbd"
)

// Ways returns one line per volume and front end: what a client is given to reach it.
func (c *Cluster) Ways(ctx context.Context) ([]string, error) {
	reply, err := c.meta.List(ctx, &metapb.ListRequest{Path: "/"})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, file := range reply.GetFiles() {
		if !file.GetDirectory() {
			names = append(names, strings.TrimPrefix(file.GetPath(), "/"))
		}
	}
	return Ways(names, c.targets.NBD(), c.targets.ISCSI(), c.config.NBDTLS), nil
}

// Ways makes the lines for volumes served at these addresses, HOST:PORT or unix:PATH.
func Ways(names, addresses, targets []string, t nbd.TLS) (lines []string) {
	for _, name := range names {
		for _, address := range addresses {
			lines = append(lines, NBD(address, name, t))
		}
		for _, address := range targets {
			lines = append(lines, fmt.Sprintf("iscsi://%s/%s%s/1", address, iscsi.DefaultPrefix, name))
		}
	}
	return lines
}

// NBD is the URI of an export.
func NBD(address, name string, t nbd.TLS) string {
	scheme := "nbd"
	if t.Mode == nbd.TLSRequire {
		scheme = "nbds"
	}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return (&url.URL{Scheme: scheme + "+unix", Path: "/" + name, RawQuery: url.Values{"socket": {path}}.Encode()}).String()
	}
	return (&url.URL{Scheme: scheme, Host: address, Path: "/" + name}).String()
}
