package volume

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"pstorage/blockstore/block"
	"pstorage/blockstore/blocktest"
	"pstorage/cs"
)

// serverEnv makes the test binary a chunk server: the benchmarks run three of them as processes.
const serverEnv = "PSTORAGE_TEST_CHUNK_SERVER" // DIR,MDS

// checks is how many random histories the real cluster is put through: each costs many syncs.
const checks = "10"

func TestMain(m *testing.M) {
	if dir, mds, ok := strings.Cut(os.Getenv(serverEnv), ","); ok {
		if err := serve(dir, mds); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := flag.Set("rapid.checks", checks); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func serve(dir, mds string) error {
	s, err := cs.Start(context.Background(), cs.Config{Dir: dir, MDS: []string{mds}})
	if err != nil {
		return err
	}
	_, _ = bufio.NewReader(os.Stdin).ReadByte() // until the benchmark is over
	return s.Close()
}

// spawn starts the chunk server as a process, and returns what kills it.
func (k *real) spawn(i int) (kill func()) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprint(serverEnv, "=", k.dirs[i], ",", k.meta.ClientAddr()))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	must(k.t, err)
	must(k.t, cmd.Start())
	var once sync.Once
	end := func(how func() error) { once.Do(func() { _, _ = how(), cmd.Wait() }) }
	k.t.Cleanup(func() { end(in.Close) })
	k.pids = append(k.pids, cmd.Process.Pid)
	return func() { end(cmd.Process.Kill) }
}

// load keeps a number of requests in flight, as a front end does: what comes back together goes out together.
type load struct {
	d      block.Device
	left   atomic.Int64
	out    atomic.Int64
	bad    atomic.Int64
	random bool
	seed   atomic.Uint64
	end    chan struct{}
}

func (l *load) Complete(batch []*block.Request) {
	next := make([]*block.Request, 0, len(batch))
	for _, r := range batch {
		if r.Err != nil {
			l.bad.Add(1)
		}
		if l.left.Add(-1) >= 0 {
			l.place(r)
			next = append(next, r)
		} else if l.out.Add(-1) == 0 {
			close(l.end)
		}
	}
	if len(next) > 0 {
		l.d.Submit(next)
	}
}

func (l *load) place(r *block.Request) {
	n := l.seed.Add(1)
	if l.random {
		n = n * 6364136223846793005 >> 20
	}
	r.Offset = int64(n%uint64(l.d.Size()/r.Length)) * r.Length
}

func (l *load) run(b *testing.B, pids []int, op block.Op, size int64, depth int, random bool) {
	depth = min(depth, b.N)
	l.random, l.end = random, make(chan struct{})
	l.left.Store(int64(b.N - depth))
	l.out.Store(int64(depth))
	var batch []*block.Request
	for i := range depth {
		r := &block.Request{Op: op, Length: size, Data: blocktest.Bytes(uint64(i), int(size)), Done: l}
		l.place(r)
		batch = append(batch, r)
	}
	b.SetBytes(size)
	b.ReportAllocs()
	before := cpuSeconds(pids)
	b.ResetTimer()
	l.d.Submit(batch)
	<-l.end
	if n := l.bad.Load(); n > 0 {
		b.Fatalf("%d requests failed, one with %v", n, batch[0].Err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	b.ReportMetric((cpuSeconds(pids)-before)/float64(b.N)*1e5, "cpu-s/100k")
}

// ticks is how many of its units of time the kernel counts in a second, in /proc.
const ticks = 100

// cpuSeconds is what this process and others have used so far, of both kinds of time.
func cpuSeconds(pids []int) (sum float64) {
	for _, pid := range append([]int{os.Getpid()}, pids...) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		for _, f := range fields[11:13] { // utime, stime
			n, _ := strconv.ParseFloat(f, 64)
			sum += n / ticks
		}
	}
	return sum
}

// BenchmarkVolume: three replicas in three processes, over TCP, data in the page cache.
func BenchmarkVolume(b *testing.B) {
	k := startReal(b, 3)
	for i := range k.servers {
		k.stop(i)
		k.spawn(i)
	}
	c := k.newClient(1)
	defer c.Close()
	v := k.openFile(c, k.createWith(512<<20, 3, 2, 64<<20))
	for at := int64(0); at < v.Size(); at += 1 << 20 {
		blocktest.Must(b, v, blocktest.Write(at, blocktest.Bytes(uint64(at), 1<<20)))
	}
	for _, s := range []struct {
		name   string
		op     block.Op
		size   int64
		depth  int
		random bool
	}{
		{"sequential-write-128K", block.Write, 128 << 10, 16, false},
		{"sequential-read-128K", block.Read, 128 << 10, 16, false},
		{"random-write-4K-32", block.Write, 4096, 32, true},
		{"random-read-4K-32", block.Read, 4096, 32, true},
		{"random-write-4K-1", block.Write, 4096, 1, true},
		{"random-read-4K-1", block.Read, 4096, 1, true},
	} {
		b.Run(s.name, func(b *testing.B) { (&load{d: v}).run(b, k.pids, s.op, s.size, s.depth, s.random) })
	}
}
