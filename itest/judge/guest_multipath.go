package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"pstorage/itest/cluster"
	"pstorage/itest/hosts"
)

const (
	multipathTime = 15 * time.Minute
	// emulation is what a guest whose processors are emulated may take longer than its timers say. With it a write must still not wait for
	// the timer of its SCSI command (30 s).
	emulation = 8 * time.Second

	secondPortal, guestCard = "10.77.0.101", "tap0,10.77.0.201/24"
)

// multipath is a guest that writes to a volume which it has two paths to.
type multipath struct {
	writer
	net     *hosts.Net
	portals []string
	timers  time.Duration // after which the guest's kernel turns from a path that was cut
	told    []string      // of each cut
}

// guestMultipath cuts the paths of a guest's multipath disk, while it writes.
func (j *judge) guestMultipath(ctx context.Context) (said string, err error) {
	ctx, cancel := context.WithTimeout(ctx, multipathTime)
	defer cancel()
	if err := guestImage(ctx); err != nil {
		return "", err
	}
	net, err := hosts.New(1)
	if err != nil {
		return "", err
	}
	defer net.Close()
	up, err := j.upOnHost(ctx, net.Host(0))
	if err != nil {
		return "", err
	}
	defer func() { err = stopProcess(up, err) }()
	m := &multipath{net: net, portals: []string{net.Host(0).Address(), secondPortal}}
	if err := m.boot(ctx, j); err != nil {
		return "", err
	}
	defer m.guest.Kill()
	return m.run(ctx)
}

// upOnHost starts a cluster whose volume v has portals at two addresses of the host.
func (j *judge) upOnHost(ctx context.Context, host *hosts.Host) (*cluster.Process, error) {
	if err := host.Alias(secondPortal); err != nil {
		return nil, err
	}
	line := append(host.Enter(), j.binary, "up", "--data", filepath.Join(j.dir, "data"), "--volume", "v=1G", "--nbd", "",
		"--insecure-network", "--iscsi", host.Address()+":3260,"+secondPortal+":3260")
	return cluster.Start(ctx, "up", filepath.Join(j.dir, "up.log"), nil, line...)
}

// boot boots the guest with a card on the host's switch, and with the settings that are recommended.
func (m *multipath) boot(ctx context.Context, j *judge) error {
	enter, err := m.net.Tap("tap0")
	if err != nil {
		return err
	}
	options := []string{"-t", guestCard, "-f", guestWriter}
	for name, heading := range map[string]string{"iscsid.conf": "## Linux: open-iscsi", "multipath.conf": "### multipath.conf"} {
		path := filepath.Join(j.dir, name)
		if err := recommended(heading, path); err != nil {
			return err
		}
		options = append(options, "-f", path)
	}
	m.guest, err = j.bootShell(ctx, enter, "guest", "guest-multipath.sh", options...)
	return err
}

// run cuts one path, then the other, then both.
func (m *multipath) run(ctx context.Context) (string, error) {
	if err := m.attach(ctx); err != nil {
		return "", err
	}
	for _, portals := range [][]string{m.portals[:1], m.portals[1:], m.portals} {
		if err := m.cut(ctx, portals); err != nil {
			return "", fmt.Errorf("%s cut: %w", strings.Join(portals, " and "), err)
		}
	}
	writes, err := m.number(ctx, "written")
	for _, command := range []string{"finish", "detach"} {
		if err == nil {
			_, err = m.guest.Do(ctx, command)
		}
	}
	return fmt.Sprintf("%d synced writes, no error, all read back; the initiator's timers allow %v.\n      %s", writes, m.timers, strings.Join(m.told, "\n      ")), err
}

// attach makes one disk of both paths and has the writer begin.
func (m *multipath) attach(ctx context.Context) error {
	if _, err := m.guest.Do(ctx, "attach "+strings.Join(m.portals, " ")); err != nil {
		return err
	}
	if _, err := m.wait(ctx, "active_paths", len(m.portals)); err != nil {
		return err
	}
	seconds, err := m.number(ctx, "timers")
	m.timers = time.Duration(seconds) * time.Second
	if err == nil {
		_, err = m.guest.Do(ctx, "begin")
	}
	return err
}

// cut drops the packets of some portals until the guest has noticed, and goes on writing if a path is left; then it heals them, and
// waits until both paths are used again.
func (m *multipath) cut(ctx context.Context, portals []string) error {
	if err := m.more(ctx); err != nil {
		return err
	}
	before, err := m.number(ctx, "written")
	if err != nil {
		return err
	}
	for _, p := range portals {
		err = errors.Join(err, m.net.CutAddress(p))
	}
	left, began := len(m.portals)-len(portals), time.Now()
	if err == nil {
		_, err = m.wait(ctx, "failed_paths", len(portals))
	}
	if err == nil && left > 0 {
		err = m.more(ctx)
	}
	held := time.Since(began)
	if err := errors.Join(err, m.net.Heal()); err != nil {
		return err
	}
	healed, err := m.wait(ctx, "active_paths", len(m.portals))
	if err == nil {
		err = m.more(ctx)
	}
	longest, longestErr := m.number(ctx, fmt.Sprintf("longest %d", before+1))
	if err := errors.Join(err, longestErr); err != nil {
		return err
	}
	limit := m.timers
	if left == 0 {
		limit = held + healed
	}
	return m.assess(portals, held, healed, time.Duration(longest)*time.Microsecond, limit)
}

// assess notes what a cut was like, and judges it.
func (m *multipath) assess(portals []string, held, healed, longest, limit time.Duration) error {
	tenth := func(d time.Duration) time.Duration { return d.Round(100 * time.Millisecond) }
	m.told = append(m.told, fmt.Sprintf("%s cut for %v: a write took %v; both paths active %v after it was healed", strings.Join(portals, " and "), tenth(held), tenth(longest), tenth(healed)))
	if longest > limit+emulation {
		return fmt.Errorf("a write took %v, over %v", longest, limit)
	}
	return nil
}
