package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"pstorage/cli/size"
	"pstorage/itest/cluster"
	"pstorage/itest/scenario"
)

// startAll starts contenders; those whose program is not installed are left out, and that is said.
func startAll(starters ...func() (*contender, error)) (list []*contender, stop func() error, err error) {
	stop = func() error {
		var errs []error
		for _, c := range list {
			errs = append(errs, c.stop())
		}
		return errors.Join(errs...)
	}
	for i, start := range starters {
		c, err := start()
		if err != nil && i > 0 {
			fmt.Fprintln(os.Stderr, "left out:", err)
			continue
		}
		if err != nil {
			return nil, stop, err
		}
		list = append(list, c)
		if err := c.fill(); err != nil {
			return nil, stop, errors.Join(err, stop())
		}
	}
	settle()
	return list, stop, nil
}

func frontContenders(ctx context.Context, c config) ([]*contender, func() error, error) {
	return startAll(
		func() (*contender, error) { return memoryTarget(ctx, c) },
		func() (*contender, error) { return nbdkit(c) },
		func() (*contender, error) { return qemuNBD(c) },
	)
}

var frontFloors = map[string]floor{
	"4k rand read QD32":  {perSecond: 300_000},
	"4k rand write QD32": {perSecond: 300_000},
}

// front measures the front end alone.
func front(ctx context.Context, c config) error {
	contenders, stop, err := frontContenders(ctx, c)
	if err != nil {
		return err
	}
	medians, err := measure(c, contenders, load(c))
	if err != nil {
		return errors.Join(err, stop())
	}
	return errors.Join(table("NBD front end alone, volume in memory, TCP, one connection", contenders, medians, frontFloors), stop())
}

// throughFio measures the front end through fio.
func throughFio(ctx context.Context, c config) error {
	if err := scenario.Need("fio"); err != nil {
		fmt.Fprintln(os.Stderr, "left out:", err)
		return nil
	}
	contenders, stop, err := frontContenders(ctx, c)
	if err != nil {
		return err
	}
	medians, err := measure(c, contenders, func(who *contender, w workload) (sample, error) { return fio(ctx, c, who, w) })
	if err != nil {
		return errors.Join(err, stop())
	}
	return errors.Join(table("The same through fio", contenders, medians, nil), stop())
}

func fio(ctx context.Context, c config, who *contender, w workload) (s sample, err error) {
	direction := "read"
	if w.pattern.Write {
		direction = "write"
	}
	if !w.sequential() {
		direction = "rand" + direction
	}
	before, err := who.usage()
	if err != nil {
		return s, err
	}
	r, err := scenario.Fio(ctx, c.dir, "--name=j", "--ioengine=nbd", "--uri="+who.uri, "--rw="+direction, fmt.Sprintf("--bs=%d", w.pattern.Size),
		fmt.Sprintf("--iodepth=%d", w.pattern.Depth), "--time_based", fmt.Sprintf("--runtime=%dms", c.time.Milliseconds()), fmt.Sprintf("--size=%d", volumeSize), "--norandommap")
	if err != nil {
		return s, err
	}
	after, err := who.usage()
	rate := r.ReadRate + r.WriteRate
	return sample{
		perSecond: rate, p50: float64(r.Median.Microseconds()), p99: float64(r.P99.Microseconds()),
		cpu: (after.CPU - before.CPU).Seconds() * 1e5 / max(1, rate*c.time.Seconds()), rss: after.RSS,
	}, err
}

var clusterFloors = map[string]floor{
	"4k rand read QD32":   {perSecond: 100_000},
	"4k rand write QD32":  {perSecond: 50_000},
	"4k rand read QD1":    {micros: 70},
	"4k rand write QD1":   {micros: 120},
	"128k seq read QD16":  {mbPerSec: 2000},
	"128k seq write QD16": {mbPerSec: 900},
}

const (
	idleTime  = 3 * time.Second
	idleLimit = 60 << 20
	busyLimit = 256 << 20
)

// clusterSuite measures three replicas in separate processes.
func clusterSuite(ctx context.Context, c config) error {
	cl, err := cluster.New(ctx, c.binary, c.dir, cluster.Options{})
	if err != nil {
		return err
	}
	defer cl.Stop()
	if _, err := cl.Run(ctx, "create", "bench", "-s", fmt.Sprint(volumeSize)); err != nil {
		return err
	}
	us := &contender{name: "pstorage x3", uri: cl.NBD("bench"), stop: cl.Stop}
	for _, p := range cl.Processes() {
		us.parts = append(us.parts, part{p.Name, p.PID()})
	}
	time.Sleep(idleTime)
	idle, err := us.memory()
	if err != nil {
		return err
	}
	contenders, stop, err := startAll(
		func() (*contender, error) { return us, nil },
		func() (*contender, error) { return qemuNBD(c) },
	)
	if err != nil {
		return err
	}
	medians, err := measure(c, contenders, load(c))
	if err != nil {
		return errors.Join(err, stop())
	}
	busy, err := us.memory()
	return errors.Join(err,
		table("Three replicas, every server a process of its own (qemu-nbd: one copy, no cluster)", contenders, medians, clusterFloors),
		memoryTable(us, idle, busy), stop())
}

// memory of each part.
func (c *contender) memory() (list []uint64, err error) {
	for _, p := range c.parts {
		u, err := cluster.UsageOf(p.pid)
		if err != nil {
			return nil, err
		}
		list = append(list, u.RSS)
	}
	return list, nil
}

func memoryTable(c *contender, idle, busy []uint64) error {
	fmt.Printf("\nMemory (RSS; under %s idle, under %s busy)\n\n", size.Format(idleLimit), size.Format(busyLimit))
	for i, p := range c.parts {
		if i >= len(idle) || i >= len(busy) {
			return errors.New("memory was not measured")
		}
		word := "ok"
		if idle[i] > idleLimit || busy[i] > busyLimit {
			word = "MISSED"
		}
		fmt.Printf("  %-10s idle %6s  busy %6s  %s\n", p.name, size.Format(idle[i]), size.Format(busy[i]), word)
	}
	return nil
}
