package embedded

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"pstorage/meta/metapb"
	"pstorage/target/iscsi"
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
	return Ways(names, c.targets.NBD(), c.targets.ISCSI()), nil
}

// Ways makes the lines for volumes served at these addresses, HOST:PORT or unix:PATH.
func Ways(names, nbd, targets []string) (lines []string) {
	for _, name := range names {
		for _, address := range nbd {
			lines = append(lines, NBD(address, name))
		}
		for _, address := range targets {
			lines = append(lines, fmt.Sprintf("iscsi://%s/%s%s/1", address, iscsi.DefaultPrefix, name))
		}
	}
	return lines
}

// NBD is the URI of an export.
func NBD(address, name string) string {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return (&url.URL{Scheme: "nbd+unix", Path: "/" + name, RawQuery: url.Values{"socket": {path}}.Encode()}).String()
	}
	return (&url.URL{Scheme: "nbd", Host: address, Path: "/" + name}).String()
}
