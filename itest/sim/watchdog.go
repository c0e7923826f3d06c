package sim

import (
	"fmt"
	"runtime"
	"syscall"
	"time"
)

// A run takes about a second. One whose virtual time stands still, since somebody waits for a lock whose holder sleeps, or that runs in
// circles, is ended: after so much of the processor's time, or of real time, which other processes take from it too.
const (
	maxProcessor = 90 * time.Second
	maxReal      = 8 * time.Minute
)

// watchdog panics when a run takes too long, unless the function it returns is called. It must not be called within the bubble.
func watchdog(describe func() string) (stop func()) {
	done := make(chan struct{})
	begin, used := time.Now(), processorTime()
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			if processorTime()-used > maxProcessor || time.Since(begin) > maxReal {
				stacks := make([]byte, 4<<20)
				stacks = stacks[:runtime.Stack(stacks, true)]
				panic(fmt.Sprintf("virtual time stands still, or something runs in circles: %s\n%s", describe(), stacks))
			}
		}
	}()
	return func() { close(done) }
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
