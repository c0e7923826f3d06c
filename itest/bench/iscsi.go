package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"pstorage/itest/cluster"
	"pstorage/itest/iscsi"
	"pstorage/itest/nbd"
	"pstorage/itest/ports"
	"pstorage/itest/scenario"
)

// loadSource is the load generator on libiscsi.
const loadSource = "itest/lab/iscsi-load.c"

// iscsiFloors are what one replica on this machine is to reach; times are of tgt's.
var iscsiFloors = map[string]floor{
	"4k rand read QD32":   {perSecond: 100_000, times: 3},
	"4k rand write QD32":  {perSecond: 100_000, times: 3},
	"4k rand read QD1":    {times: 1},
	"4k rand write QD1":   {times: 1},
	"128k seq read QD16":  {times: 1.3},
	"128k seq write QD16": {times: 1.3},
}

// iscsiSuite measures one replica beside Debian's tgt on a file, both in the page cache, and how a slow volume scales.
func iscsiSuite(ctx context.Context, c config) error {
	if err := scenario.Need("cc", "tgtd", "tgtadm"); err != nil {
		fmt.Fprintln(os.Stderr, "left out:", err)
		return nil
	}
	generator := filepath.Join(c.dir, "iscsi-load")
	if out, err := exec.CommandContext(ctx, "cc", "-O2", "-o", generator, loadSource, "-liscsi").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "left out: iscsi-load does not compile (libiscsi-dev?): %v\n%s", err, out)
		return nil
	}
	contenders, stop, err := startAll(
		func() (*contender, error) { return oneReplica(ctx, c) },
		func() (*contender, error) { return tgt(ctx, c) },
	)
	if err != nil {
		return err
	}
	medians, err := measure(c, contenders, func(who *contender, w workload) (sample, error) {
		return throughISCSI(ctx, c, generator, who, w.pattern)
	})
	if err != nil {
		return errors.Join(err, stop())
	}
	return errors.Join(table("iSCSI, one replica on this machine (tgt: a file), page cache, one session", contenders, medians, iscsiFloors), stop(),
		scaling(ctx, c, generator))
}

// oneReplica is a whole cluster in one process.
func oneReplica(ctx context.Context, c config) (*contender, error) {
	u, err := cluster.StartUp(ctx, c.binary, filepath.Join(c.dir, "up"), "--cs", "1", "--replicas", "1", "--volume", fmt.Sprintf("v=%d", volumeSize))
	if err != nil {
		return nil, err
	}
	return &contender{name: "pstorage", uri: u.ISCSI("v"), parts: []part{{"up", u.PID()}}, stop: func() error { _, err := u.Stop(); return err }}, nil
}

const tgtName = "iqn.2026-01.local.bench:tgt"

// tgt serves a file. It does not end on SIGTERM.
func tgt(ctx context.Context, c config) (*contender, error) {
	port, err := ports.Free()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(c.dir, "tgt.raw")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, volumeSize)); err != nil {
		return nil, err
	}
	control := strconv.Itoa(port) // tells its socket from other tgtds'
	process := exec.Command("tgtd", "-f", "-C", control, "--iscsi", "portal="+ports.Local(port))
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		return nil, err
	}
	who := &contender{name: "tgt", uri: fmt.Sprintf("iscsi://%s/%s/1", ports.Local(port), tgtName), parts: []part{{"tgtd", process.Process.Pid}}}
	who.stop = func() error {
		_ = process.Process.Kill()
		_ = process.Wait()
		return os.Remove(file)
	}
	for _, step := range []string{
		"--op new --mode target --tid 1 -T " + tgtName,
		"--op new --mode logicalunit --tid 1 --lun 1 --bstype rdwr -b " + file,
		"--op bind --mode target --tid 1 -I ALL",
	} {
		if err := tgtadm(ctx, control, step); err != nil {
			return nil, errors.Join(err, who.stop())
		}
	}
	return who, nil
}

// tgtadm does one step as soon as the daemon listens.
func tgtadm(ctx context.Context, control, step string) error {
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		out, err := exec.CommandContext(ctx, "tgtadm", append([]string{"-C", control, "--lld", "iscsi"}, strings.Fields(step)...)...).CombinedOutput()
		if err == nil || time.Now().After(limit) || ctx.Err() != nil {
			if err != nil {
				err = fmt.Errorf("tgtadm %s: %w: %s", step, err, out)
			}
			return err
		}
	}
}

// fillISCSI writes the whole LUN once.
func (c *contender) fillISCSI() error {
	u, err := url.Parse(c.uri)
	if err != nil {
		return err
	}
	target, number, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	lun, err := strconv.Atoi(number)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := iscsi.Login(ctx, u.Host, iscsi.Options{Initiator: "iqn.2026-01.local.bench:fill", Target: target})
	if err != nil {
		return err
	}
	const step, sector = 1 << 20, 512
	data := make([]byte, step)
	for i := range data {
		data[i] = byte(i * 131)
	}
	for at := uint64(0); at < volumeSize; at += step {
		if _, err := s.Do(lun, iscsi.Write16(at/sector, step/sector), data, 0); err != nil {
			return errors.Join(fmt.Errorf("fill %s: %w", c.name, err), s.Close())
		}
	}
	return s.Logout()
}

// throughISCSI runs the generator.
func throughISCSI(ctx context.Context, c config, generator string, who *contender, p nbd.Pattern) (s sample, err error) {
	pattern := []byte("rr")
	if p.Sequential {
		pattern[0] = 's'
	}
	if p.Write {
		pattern[1] = 'w'
	}
	before, err := who.usage()
	if err != nil {
		return s, err
	}
	out, err := exec.CommandContext(ctx, generator, who.uri, string(pattern), strconv.Itoa(p.Size), strconv.Itoa(p.Depth), fmt.Sprint(c.time.Seconds())).CombinedOutput()
	if err != nil {
		return s, fmt.Errorf("iscsi-load: %w: %s", err, out)
	}
	after, err := who.usage()
	if err != nil {
		return s, err
	}
	if s, err = parseLoad(string(out)); err != nil {
		return s, err
	}
	s.cpu = (after.CPU - before.CPU).Seconds() * 1e5 / max(1, s.perSecond*c.time.Seconds())
	s.rss = after.RSS
	return s, nil
}

// parseLoad reads the generator's line: iops=N MiBps=N p50=N p99=N p999=N initiator_cores=N.
func parseLoad(line string) (s sample, err error) {
	for _, word := range strings.Fields(line) {
		name, text, _ := strings.Cut(word, "=")
		to := map[string]*float64{"iops": &s.perSecond, "p50": &s.p50, "p99": &s.p99, "initiator_cores": &s.client}[name]
		if to == nil {
			continue
		}
		if *to, err = strconv.ParseFloat(text, 64); err != nil {
			return s, fmt.Errorf("%q: %w", line, err)
		}
	}
	if s.perSecond == 0 {
		err = fmt.Errorf("iscsi-load said %q", line)
	}
	return s, err
}

// slowness is the latency of the volume that scaling measures.
const slowness = time.Millisecond

// scaling shows whether commands wait for each other where a volume is slow.
func scaling(ctx context.Context, c config, generator string) error {
	p, err := cluster.Start(ctx, "bench-target", filepath.Join(c.dir, "slow.log"), nil,
		c.binary, "bench-target", "--size", fmt.Sprint(volumeSize), "--iscsi", "127.0.0.1:0", "--latency", slowness.String())
	if err != nil {
		return err
	}
	who := &contender{name: "slow", uri: p.Way("iscsi://"), parts: []part{{"bench-target", p.PID()}}}
	fmt.Printf("\niSCSI, a volume that takes %v for each request, 4k rand read\n\n", slowness)
	first := 0.0
	for _, depth := range []int{1, 4, 16, 64, 128} {
		s, err := throughISCSI(ctx, c, generator, who, nbd.Pattern{Size: 4096, Depth: depth})
		if err != nil {
			_, stopErr := p.Stop()
			return errors.Join(err, stopErr)
		}
		if depth == 1 {
			first = s.perSecond
		}
		fmt.Printf("  QD%-4d %8.0f/s  %6.1fx of QD1  p50 %5.0f us\n", depth, s.perSecond, s.perSecond/first, s.p50)
	}
	_, err = p.Stop()
	return err
}
