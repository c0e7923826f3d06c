package meta

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"pstorage/meta/metapb"
)

// loadEvery is the least time that a load is measured over.
const loadEvery = 3 * time.Second

// load measures what a metadata server does.
type load struct {
	written func() (uint64, time.Duration) // of the log's store
	started time.Time

	mu     sync.Mutex
	at     time.Time // of the last measurement
	writes uint64
	took   time.Duration
	cpu    time.Duration
	last   *metapb.MdsLoad
}

func newLoad(written func() (uint64, time.Duration)) *load {
	l := &load{written: written, started: time.Now(), at: time.Now(), cpu: processorTime()}
	l.writes, l.took = written()
	return l
}

// measure returns the load over the last seconds.
func (l *load) measure() *metapb.MdsLoad {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if passed := now.Sub(l.at); l.last == nil || passed >= loadEvery {
		writes, took := l.written()
		cpu := processorTime()
		seconds := max(passed.Seconds(), 1)
		l.last = &metapb.MdsLoad{
			Memory: residentMemory(), LogTime: min((took-l.took).Seconds()/seconds, 1),
			Commits: float64(writes-l.writes) / seconds, Cpu: (cpu - l.cpu).Seconds() / seconds,
		}
		l.at, l.writes, l.took, l.cpu = now, writes, took, cpu
	}
	return &metapb.MdsLoad{
		UptimeSeconds: uint64(now.Sub(l.started).Seconds()), Memory: l.last.Memory,
		LogTime: l.last.LogTime, Commits: l.last.Commits, Cpu: l.last.Cpu,
	}
}

// processorTime is what the process has used.
func processorTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// residentMemory is the process's resident set; where the system does not tell, what the Go runtime has taken.
func residentMemory() uint64 {
	text, err := os.ReadFile("/proc/self/statm")
	fields := strings.Fields(string(text))
	if err == nil && len(fields) > 1 {
		if pages, err := strconv.ParseUint(fields[1], 10, 64); err == nil {
			return pages * uint64(os.Getpagesize())
		}
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Sys
}
