// Command bench measures speed side by side with peers: in one run, interleaved, medians of several rounds, with what the
// servers used of the machine.
//
//	go run ./itest/bench [-time 3s] [-rounds 3] [-only REGEX] [-suite front,cluster,fio,iscsi] [-binary bin/pstorage]
//
// Suites:
//
//	front    the NBD front end alone, on a volume in memory, against nbdkit and qemu-nbd on memory
//	fio      the same through fio, whose own cost limits it
//	cluster  three replicas on three chunk servers, each a process of its own; memory idle and under load
//	iscsi    one replica over iSCSI, through libiscsi, against Debian's tgt on a file; and how a slow volume scales with depth
//
// # DESIGN
//
// A contender is a set of processes that serve a volume. Each workload runs on every contender in turn, and all of that again in
// each round, so that what else the machine does meets all alike. Figures are medians over the rounds; processor time is that of the
// contender's processes, from /proc.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"syscall"
	"time"

	"pstorage/itest/nbd"
)

// config is what the command line says.
type config struct {
	binary string
	time   time.Duration
	rounds int
	only   *regexp.Regexp
	suites string
	dir    string
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() (err error) {
	var c config
	only := flag.String("only", "", "workloads whose name this `REGEX` matches")
	flag.StringVar(&c.binary, "binary", "bin/pstorage", "the program to measure")
	flag.DurationVar(&c.time, "time", 3*time.Second, "length of each measurement")
	flag.IntVar(&c.rounds, "rounds", 3, "measurements of each workload")
	flag.StringVar(&c.suites, "suite", "front,fio,cluster,iscsi", "what to measure")
	flag.Parse()
	if c.only, err = regexp.Compile(*only); err != nil {
		return err
	}
	if c.dir, err = os.MkdirTemp("", "pstorage-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(c.dir)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	var errs []error
	for _, suite := range strings.Split(c.suites, ",") {
		f := map[string]func(context.Context, config) error{"front": front, "fio": throughFio, "cluster": clusterSuite, "iscsi": iscsiSuite}[suite]
		if f == nil {
			return fmt.Errorf("there is no suite %q", suite)
		}
		if err := f(ctx, c); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", suite, err))
		}
	}
	return errors.Join(errs...)
}

// workload is one pattern, with the least that is expected of pstorage in each suite; 0: nothing in particular.
type workload struct {
	name    string
	pattern nbd.Pattern
}

var workloads = []workload{
	{"4k rand read QD32", nbd.Pattern{Size: 4096, Depth: 32}},
	{"4k rand write QD32", nbd.Pattern{Size: 4096, Depth: 32, Write: true}},
	{"4k rand read QD1", nbd.Pattern{Size: 4096, Depth: 1}},
	{"4k rand write QD1", nbd.Pattern{Size: 4096, Depth: 1, Write: true}},
	{"128k seq read QD16", nbd.Pattern{Size: 128 << 10, Depth: 16, Sequential: true}},
	{"128k seq write QD16", nbd.Pattern{Size: 128 << 10, Depth: 16, Sequential: true, Write: true}},
}

// floor is the least that a suite expects of pstorage for a workload.
type floor struct {
	perSecond float64 // requests
	micros    int     // median
	mbPerSec  float64 // 10^6 bytes
	times     float64 // of the second contender's requests a second
}

func (w workload) sequential() bool { return w.pattern.Sequential }
