package cluster

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// Usage is what a process has used of the machine.
type Usage struct {
	CPU time.Duration
	RSS uint64 // bytes
}

// Usage reads what the process has used so far.
func (p *Process) Usage() (Usage, error) { return UsageOf(p.PID()) }

// UsageOf reads it for any process.
func UsageOf(pid int) (u Usage, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	// After the name, which may have blanks and brackets: state is field 3, utime 14, stime 15, rss 24.
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 22 {
		return u, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	var ticks uint64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return u, err
		}
		ticks += n
	}
	pages, err := strconv.ParseUint(fields[21], 10, 64)
	return Usage{time.Duration(ticks) * time.Second / ticksPerSecond, pages * uint64(os.Getpagesize())}, err
}

// ticksPerSecond is USER_HZ, which is 100 on every Linux that this runs on.
const ticksPerSecond = 100
