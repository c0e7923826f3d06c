package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"pstorage/itest/cluster"
	"pstorage/itest/nbd"
	"pstorage/itest/ports"
)

// volumeSize is what every contender serves: it fits in memory, several times over.
const volumeSize = 1 << 30

// contender serves a volume.
type contender struct {
	name  string
	uri   string
	parts []part
	stop  func() error
}

// part is one of a contender's processes.
type part struct {
	name string
	pid  int
}

// usage of all parts together.
func (c *contender) usage() (total cluster.Usage, err error) {
	for _, p := range c.parts {
		u, err := cluster.UsageOf(p.pid)
		if err != nil {
			return total, fmt.Errorf("%s: %w", p.name, err)
		}
		total.CPU += u.CPU
		total.RSS += u.RSS
	}
	return total, nil
}

// memoryTarget is pstorage's front ends on a volume in memory.
func memoryTarget(ctx context.Context, c config) (*contender, error) {
	p, err := cluster.Start(ctx, "bench-target", filepath.Join(c.dir, "bench-target.log"), nil,
		c.binary, "bench-target", "--size", fmt.Sprint(volumeSize), "--nbd", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	return &contender{
		name: "pstorage", uri: p.Way("nbd://"), parts: []part{{"bench-target", p.PID()}},
		stop: func() error { _, err := p.Stop(); return err },
	}, nil
}

// nbdkit serves memory.
func nbdkit(c config) (*contender, error) {
	return peer("nbdkit", func(port int) []string {
		return []string{"nbdkit", "-f", "-i", "127.0.0.1", "-p", fmt.Sprint(port), "memory", fmt.Sprint(volumeSize)}
	}, "")
}

// qemuNBD serves a file in memory.
func qemuNBD(c config) (*contender, error) {
	file := filepath.Join("/dev/shm", filepath.Base(c.dir)+".raw")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return nil, err
	}
	if err := os.Truncate(file, volumeSize); err != nil {
		return nil, err
	}
	return peer("qemu-nbd", func(port int) []string {
		return []string{"qemu-nbd", "-b", "127.0.0.1", "-p", fmt.Sprint(port), "-f", "raw", "-t", "-e", "8", "-x", "v", "--cache=writeback", file}
	}, file)
}

// peer starts another project's server on a free port.
func peer(name string, command func(port int) []string, file string) (*contender, error) {
	port, err := ports.Free()
	if err != nil {
		return nil, err
	}
	args := command(port)
	process := exec.Command(args[0], args[1:]...)
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		return nil, err
	}
	p := &contender{name: name, uri: fmt.Sprintf("nbd://127.0.0.1:%d/v", port), parts: []part{{name, process.Process.Pid}}}
	p.stop = func() error {
		_ = process.Process.Signal(syscall.SIGTERM)
		_ = process.Wait()
		if file != "" {
			return os.Remove(file)
		}
		return nil
	}
	return p, p.await()
}

// await returns when the server answers.
func (c *contender) await() error {
	deadline := time.Now().Add(10 * time.Second)
	for {
		conn, _, err := nbd.Dial(c.uri)
		if err == nil {
			return conn.Close()
		}
		if time.Now().After(deadline) {
			return errors.Join(err, c.stop())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// fill writes the whole volume once, so that reads find something and writes allocate nothing.
func (c *contender) fill() error {
	if strings.HasPrefix(c.uri, "iscsi://") {
		return c.fillISCSI()
	}
	client, err := nbd.Connect(c.uri)
	if err != nil {
		return err
	}
	defer client.Close()
	const step = 1 << 20
	data := make([]byte, step)
	for i := range data {
		data[i] = byte(i * 131)
	}
	for at := int64(0); at < min(client.Size, volumeSize); at += step {
		if err := client.Write(data, at); err != nil {
			return fmt.Errorf("fill %s: %w", c.name, err)
		}
	}
	return client.Flush()
}
