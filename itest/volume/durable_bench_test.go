package volume

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs"
)

// switches is how often threads of these processes have made way for others: what a request with nothing else in flight waits for.
func switches(pids []int) (sum int) {
	for _, pid := range append([]int{os.Getpid()}, pids...) {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
		for _, name := range tasks {
			text, _ := os.ReadFile(name)
			for line := range strings.Lines(string(text)) {
				if key, value, _ := strings.Cut(line, ":"); strings.HasSuffix(key, "ctxt_switches") {
					n, _ := strconv.Atoi(strings.TrimSpace(value))
					sum += n
				}
			}
		}
	}
	return sum
}

// BenchmarkDurable: 4 KiB written and then flushed, one at a time, on three replicas in three processes on one disk.
func BenchmarkDurable(b *testing.B) {
	for name, journal := range map[string]int64{"files": 0, "journal": 256 << 20} {
		b.Run(name, func(b *testing.B) { benchDurable(b, journal) })
	}
}

func benchDurable(b *testing.B, journal int64) {
	k := startReal(b, 3)
	for i := range k.servers {
		k.stop(i)
		if journal > 0 {
			must(b, cs.AddJournal(k.dirs[i], k.dirs[i]+"-journal", journal))
		}
		k.spawn(i)
	}
	c := k.newClient(1)
	defer c.Close()
	v := k.openFile(c, k.createWith(256<<20, 3, 2, 64<<20))
	for at := int64(0); at < v.Size(); at += 1 << 20 {
		blocktest.Must(b, v, blocktest.Write(at, blocktest.Bytes(uint64(at), 1<<20)))
	}
	blocktest.Must(b, v, &block.Request{Op: block.Flush})
	data := blocktest.Bytes(1, 4096)
	cpu, before := cpuSeconds(k.pids), switches(k.pids)
	b.ResetTimer()
	for i := range b.N {
		blocktest.Must(b, v, blocktest.Write(int64(uint64(i)*2654435761%uint64(v.Size()>>12))<<12, data))
		blocktest.Must(b, v, &block.Request{Op: block.Flush})
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
	b.ReportMetric((cpuSeconds(k.pids)-cpu)/float64(b.N)*1e5, "cpu-s/100k")
	b.ReportMetric(float64(switches(k.pids)-before)/float64(b.N), "switches/op")
}
