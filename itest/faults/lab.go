package faults

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"pstorage/itest/cluster"
	"pstorage/itest/hosts"
)

// Lab is a cluster whose daemons are on hosts of their own.
type Lab struct {
	*cluster.Cluster
	net   *hosts.Net
	names []string // of what runs on each host
}

// Others that a lab has hosts for, besides the cluster's own.
const (
	admin = "admin"
	// Second is the name of one more targetd.
	Second = "targetd2"
)

// NewLab starts a cluster in a folder, with that many metadata and chunk servers.
func NewLab(ctx context.Context, binary, dir string, o cluster.Options) (*Lab, error) {
	l := &Lab{names: []string{admin, "targetd", Second}}
	for i := range max(o.MDS, 1) {
		l.names = append(l.names, "mds"+strconv.Itoa(i+1))
	}
	for i := range o.Servers {
		l.names = append(l.names, "cs"+strconv.Itoa(i+1))
	}
	var err error
	if l.net, err = hosts.New(len(l.names)); err != nil {
		return nil, err
	}
	o.Place = func(name string) cluster.Place {
		h := l.Host(name)
		return cluster.Place{IP: h.Address(), Enter: h.Enter()}
	}
	if l.Cluster, err = cluster.New(ctx, binary, dir, o); err != nil {
		l.net.Close()
		return nil, err
	}
	return l, nil
}

// Host is where a daemon runs.
func (l *Lab) Host(name string) *hosts.Host {
	i := slices.Index(l.names, name)
	if i < 0 {
		panic(fmt.Sprintf("no host has been made for %s", name))
	}
	return l.net.Host(i)
}

// Heal ends all cuts.
func (l *Lab) Heal() error { return l.net.Heal() }

// Close ends everything.
func (l *Lab) Close() error {
	err := errors.Join(l.Heal(), l.Stop())
	l.net.Close()
	return err
}
