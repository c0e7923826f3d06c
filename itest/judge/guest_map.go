package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"pstorage/itest/cluster"
	"pstorage/itest/hosts"
)

const (
	mapTime = 15 * time.Minute
	// mapCut is how long a guest's server is cut off: longer than its kernel's TCP waits for an answer.
	mapCut = 25 * time.Second
	mapNBD = ":10809"
)

// mapped is a guest whose disk is a volume, by the kernel's NBD client.
type mapped struct {
	writer
	j    *judge
	net  *hosts.Net
	up   *cluster.Process
	told []string
}

// guestMap has a guest map a volume with pstorage-nbd, and takes its server and its keeper away while it writes.
func (j *judge) guestMap(ctx context.Context) (said string, err error) {
	ctx, cancel := context.WithTimeout(ctx, mapTime)
	defer cancel()
	if err := guestImage(ctx); err != nil {
		return "", err
	}
	m := &mapped{j: j}
	if m.net, err = hosts.New(1); err != nil {
		return "", err
	}
	defer m.net.Close()
	if err := m.serve(ctx); err != nil {
		return "", err
	}
	defer func() { err = stopProcess(m.up, err) }()
	enter, err := m.net.Tap("tap0")
	if err != nil {
		return "", err
	}
	if m.guest, err = j.bootShell(ctx, enter, "guest", "guest-map.sh", "-t", guestCard, "-f", guestWriter, "-f", j.binary); err != nil {
		return "", err
	}
	defer m.guest.Kill()
	if err := m.run(ctx); err != nil {
		_, why := m.guest.Do(context.WithoutCancel(ctx), "explain")
		return "", errors.Join(err, why)
	}
	return strings.Join(m.told, "; "), nil
}

// serve starts the cluster, at the same address each time.
func (m *mapped) serve(ctx context.Context) (err error) {
	host := m.net.Host(0)
	m.up, err = cluster.Start(ctx, "up", filepath.Join(m.j.dir, "up.log"), nil, append(host.Enter(), m.j.binary, "up", "--data",
		filepath.Join(m.j.dir, "data"), "--volume", "v=1G", "--nbd", host.Address()+mapNBD, "--iscsi", "", "--insecure-network")...)
	return err
}

func (m *mapped) run(ctx context.Context) error {
	if err := m.do(ctx, "attach "+m.net.Host(0).Address()+mapNBD, "twice", "filesystem", "begin"); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"server killed", m.restart},
		{fmt.Sprintf("server cut off for %v", mapCut), m.cut},
		{"keeper and server killed", m.loseKeeper},
	} {
		if err := m.during(ctx, step.name, step.do); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	n, err := m.number(ctx, "written")
	if err != nil {
		return err
	}
	m.told = append([]string{fmt.Sprintf("ext4, trim, %d synced writes, no error, all read back", n)}, m.told...)
	return m.do(ctx, "finish", "detach")
}

func (m *mapped) do(ctx context.Context, commands ...string) error {
	for _, command := range commands {
		if _, err := m.guest.Do(ctx, command); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
	}
	return nil
}

// during does something between writes and notes how long the longest took.
func (m *mapped) during(ctx context.Context, what string, do func(context.Context) error) error {
	if err := m.more(ctx); err != nil {
		return err
	}
	before, err := m.number(ctx, "written")
	if err != nil {
		return err
	}
	if err := do(ctx); err != nil {
		return err
	}
	if err := m.more(ctx); err != nil {
		return err
	}
	longest, err := m.number(ctx, fmt.Sprintf("longest %d", before+1))
	m.told = append(m.told, fmt.Sprintf("%s: a write took %v", what, (time.Duration(longest)*time.Microsecond).Round(100*time.Millisecond)))
	return err
}

func (m *mapped) restart(ctx context.Context) error {
	if err := m.up.Signal(syscall.SIGKILL); err != nil {
		return err
	}
	m.up.Kill()
	return m.serve(ctx)
}

func (m *mapped) cut(ctx context.Context) error {
	if err := m.net.CutAddress(m.net.Host(0).Address()); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(mapCut):
	}
	return m.net.Heal()
}

// loseKeeper kills the keeper, then the server: the disk hangs until it is mapped again.
func (m *mapped) loseKeeper(ctx context.Context) error {
	if err := m.do(ctx, "lose_keeper", "keeper_is_gone"); err != nil {
		return err
	}
	if err := m.restart(ctx); err != nil {
		return err
	}
	return m.do(ctx, "map")
}
