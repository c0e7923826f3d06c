// Command judge runs the acceptance runs that take longer than continuous integration has: everything that a user's data go
// through, in full size, with the outcome of each on one line.
//
//	go run ./itest/judge [-only REGEX] [-binary bin/pstorage] [-crashes 20] [-fio 4G] [-faults 2m]
//
// Stalls are reported and judged here, not in tests: how long a machine takes depends on the machine.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"

	"pstorage/cli/size"
)

// judge is one run of the program.
type judge struct {
	binary  string
	dir     string
	crashes int
	bytes   int64 // of the fio runs
	copied  int64 // of the copies
	seed    uint64

	cuts int // of power

	written, recovered int64 // bytes, of resync and recovery
	away               time.Duration

	mds       int // of the clusters that suffer faults
	faultTime time.Duration
	faultHold time.Duration
	kinds     string
	journal   int // MB

	cycles    int // of logins
	abuseTime time.Duration
	raced     string // the program with the race detector; empty: it is built
}

// trial is one acceptance run. What it returns is said behind its name.
type trial struct {
	name string
	run  func(*judge, context.Context) (string, error)
}

var trials = []trial{
	{"copy", (*judge).copy},
	{"fio", (*judge).fio},
	{"fio-kill", (*judge).fioKill},
	{"crash", (*judge).crash},
	{"faults", (*judge).faults},
	{"power", (*judge).power},
	{"resync", (*judge).resync},
	{"recovery", (*judge).recovery},
	{"durable", (*judge).durable},
	{"conformance", (*judge).conformance},
	{"guest-iscsi", (*judge).guestISCSI},
	{"guest-nbd", (*judge).guestNBD},
	{"logins", (*judge).logins},
	{"abuse", (*judge).abuse},
	{"guest-multipath", (*judge).guestMultipath},
	{"guest-reservations", (*judge).guestReservations},
	{"guest-map", (*judge).guestMap},
}

func main() { os.Exit(run()) }

func run() int {
	j := &judge{}
	only := flag.String("only", "", "trials whose name this `REGEX` matches")
	fio := flag.String("fio", "4G", "bytes that each fio run writes and reads")
	copied := flag.String("copy", "1G", "bytes that are copied")
	flag.StringVar(&j.binary, "binary", "bin/pstorage", "the program to judge")
	flag.IntVar(&j.crashes, "crashes", 20, "rounds of the crash loop")
	flag.IntVar(&j.mds, "mds", 3, "metadata servers of the cluster that faults are done to")
	flag.DurationVar(&j.faultTime, "faults", 2*time.Minute, "how long faults are done, one every 10 s")
	flag.DurationVar(&j.faultHold, "hold", 6500*time.Millisecond, "how long each fault lasts (a chunk server may be silent for some 5 s)")
	flag.StringVar(&j.kinds, "kinds", "", "kinds of fault whose name this `REGEX` matches")
	flag.IntVar(&j.cuts, "cuts", 20, "power cuts")
	flag.IntVar(&j.journal, "journal", 0, "`MB` of each chunk server's write journal in faults, resync and recovery; 0: none")
	written := flag.String("written", "64M", "bytes written while a chunk server is away")
	flag.DurationVar(&j.away, "away", time.Minute, "how long it is away")
	recovered := flag.String("recovered", "4G", "bytes that are recovered")
	flag.IntVar(&j.cycles, "logins", 10_000, "logins of the trial logins")
	flag.DurationVar(&j.abuseTime, "abuse", 10*time.Minute, "how long the trial abuse lasts")
	flag.StringVar(&j.raced, "raced", "", "the program built with the race detector, for logins and abuse (default: build it, which needs a C compiler)")
	flag.Uint64Var(&j.seed, "seed", uint64(time.Now().UnixNano()), "of what is random")
	flag.Parse()
	if err := j.complete(map[*int64]string{&j.bytes: *fio, &j.copied: *copied, &j.written: *written, &j.recovered: *recovered}); err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		return 2
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintln(os.Stderr, "judge:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	fmt.Printf("seed %d\n", j.seed)
	code := 0
	for _, t := range trials {
		if match.MatchString(t.name) && ctx.Err() == nil && !j.try(ctx, t) {
			code = 1
		}
	}
	return code
}

func (j *judge) complete(sizes map[*int64]string) (err error) {
	for to, text := range sizes {
		bytes, err := size.Parse(text)
		if err != nil {
			return err
		}
		*to = int64(bytes)
	}
	j.binary, err = filepath.Abs(j.binary)
	return err
}

// try runs one trial in a folder of its own. The folder of one that failed is kept.
func (j *judge) try(ctx context.Context, t trial) bool {
	dir, err := os.MkdirTemp("", "pstorage-judge-"+t.name+"-")
	if err != nil {
		fmt.Println("FAIL", t.name, err)
		return false
	}
	began := time.Now()
	j.dir = dir
	said, err := t.run(j, ctx)
	took := time.Since(began).Round(time.Second)
	if err != nil {
		fmt.Printf("FAIL  %-12s %v: %v\n      logs are in %s\n", t.name, took, err, dir)
		return false
	}
	fmt.Printf("ok    %-12s %v: %s\n", t.name, took, said)
	_ = os.RemoveAll(dir)
	return true
}
