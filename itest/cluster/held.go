package cluster

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
)

// Held is what a process holds after a collection of garbage.
type Held struct {
	Goroutines, Files int
	Heap, Resident    uint64 // bytes
}

func (h Held) String() string {
	const mib = 1 << 20
	return fmt.Sprintf("%d goroutines, %d files, %.1f MiB of heap, %.1f MiB resident", h.Goroutines, h.Files, float64(h.Heap)/mib, float64(h.Resident)/mib)
}

// Held has the process collect its garbage, and asks its metrics page; the files are those in /proc.
func (p *Process) Held(ctx context.Context) (h Held, err error) {
	if err := p.collect(ctx); err != nil {
		return h, err
	}
	values := map[string]float64{"go_goroutines": 0, "go_memstats_heap_alloc_bytes": 0, "process_resident_memory_bytes": 0}
	for name := range values {
		if values[name], err = p.Metric(ctx, name); err != nil {
			return h, err
		}
		if values[name] == 0 {
			return h, fmt.Errorf("%s does not tell %s", p.Name, name)
		}
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
	return Held{Goroutines: int(values["go_goroutines"]), Files: len(files), Heap: uint64(values["go_memstats_heap_alloc_bytes"]),
		Resident: uint64(values["process_resident_memory_bytes"])}, err
}

// collect asks for a profile of the heap, which begins with a collection.
func (p *Process) collect(ctx context.Context) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.metrics+"/debug/pprof/heap?gc=1", nil)
	if err != nil {
		return err
	}
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	_, err = io.Copy(io.Discard, reply.Body)
	return err
}
