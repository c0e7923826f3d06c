package iscsi

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

// TestExchangeStaysTheSame keeps every byte of a session that does a bit of everything.
func TestExchangeStaysTheSame(t *testing.T) {
	var b strings.Builder
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.client()
		c.trace = func(sent bool, data []byte) { dumpPDU(&b, sent, data) }
		c.login(normalKeys...)
		c.do(tur(), 0, nil) // unit attention
		c.do([]byte{0x12, 0, 0, 0, 36, 0}, 255, nil)
		c.do(write10(0, 1), 0, pattern(512, 1))
		c.send(c.command(write10(1, 2), 1024, flagWrite), nil)
		c.answerR2T(t, pattern(1024, 2), 0)
		c.answer()
		c.do(read10(0, 1), 512, nil)
		c.do(read10(0, 1), 100, nil)
		c.do(read10(1<<30, 1), 512, nil)
		h := c.newHeader(opNopOut | flagImmediate)
		h[1] = flagFinal
		h.put(16, 0x42)
		h.put(20, reservedTag)
		h.put(24, c.cmdSN)
		c.send(h, []byte("hello"))
		c.receive()
		c.send(c.manage(abortTask, 0x99), nil)
		c.receive()
		c.send(c.newHeader(opSNACK), nil)
		c.receive()
		c.send(c.logout(), nil)
		c.receive()
	})
	path := filepath.Join("testdata", "exchange.golden")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != b.String() {
		t.Errorf("differs; got:\n%s", b.String())
	}
}

func dumpPDU(b *strings.Builder, sent bool, data []byte) {
	who := "target"
	if sent {
		who = "initiator"
	}
	fmt.Fprintf(b, "%s\n", who)
	for i := 0; i < len(data); i += 16 {
		if i >= 128 && i < len(data)-16 { // of long data the beginning and the end will do
			continue
		}
		fmt.Fprintf(b, "  %03x  % x\n", i, data[i:min(i+16, len(data))])
	}
}

// overTCP starts a server on a socket and returns its address.
func overTCP(t testing.TB, cfg Config) (*portal, string) {
	t.Helper()
	s := newShelf("disk", "other")
	cfg.Catalog = s
	p := &portal{New(cfg), t, s, nil}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- p.Serve(l) }()
	t.Cleanup(func() {
		p.end()
		if err := <-served; err != ErrClosed {
			t.Errorf("Serve: %v", err)
		}
	})
	return p, l.Addr().String()
}

func tcpClient(t testing.TB, addr, name string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &client{t: t, conn: conn, cmdSN: 1, tag: 1}
	c.login(append([]string{"InitiatorName=iqn.test:" + name}, normalKeys[1:]...)...)
	c.do(tur(), 0, nil)
	return c
}

// batch is a number of commands in one piece, to be sent again and again, and room for what they are answered with.
type batch struct {
	c       *client
	out, in []byte
	n       int
}

const batchSize = 32

// newBatch makes reads or writes of 4 KiB.
func newBatch(c *client, write bool) *batch {
	b := &batch{c: c, n: batchSize}
	for i := range batchSize {
		cdb, flags, data := read10(uint32(8*i), 8), byte(flagRead), []byte(nil)
		if write {
			cdb, flags, data = write10(uint32(8*i), 8), flagWrite, pattern(4096, byte(i))
		}
		b.out = append(b.out, c.encode(c.command(cdb, 4096, flags), data)...)
	}
	c.cmdSN -= batchSize
	size := headerSize
	if !write {
		size += 4096
	}
	b.in = make([]byte, batchSize*size)
	return b
}

// run sends the commands with new sequence numbers and reads the answers.
func (b *batch) run() error {
	step := len(b.out) / b.n
	for i := range b.n {
		binary.BigEndian.PutUint32(b.out[i*step+24:], b.c.cmdSN)
		b.c.cmdSN++
	}
	if _, err := b.c.conn.Write(b.out); err != nil {
		return err
	}
	if _, err := io.ReadFull(b.c.conn, b.in); err != nil {
		return err
	}
	for i := 0; i < len(b.in); i += len(b.in) / b.n {
		if b.in[i+3] != 0 {
			return fmt.Errorf("status %02x", b.in[i+3])
		}
	}
	return nil
}

func TestSteadyReadsAndWritesAllocateNothing(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes pools allocate")
	}
	_, addr := overTCP(t, Config{})
	for _, write := range []bool{true, false} {
		b := newBatch(tcpClient(t, addr, "host"), write)
		measure := func(rounds int) uint64 {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range rounds {
				if err := b.run(); err != nil {
					t.Fatal(err)
				}
			}
			runtime.ReadMemStats(&after)
			return after.Mallocs - before.Mallocs
		}
		measure(50)
		const rounds = 200
		// pools are emptied by the collector now and then, so a few are let pass
		if n := measure(rounds); n > rounds*batchSize/50 {
			t.Errorf("write %v: %d allocations in %d commands", write, n, rounds*batchSize)
		}
	}
}

func benchmark(b *testing.B, write bool) {
	_, addr := overTCP(b, Config{})
	x := newBatch(tcpClient(b, addr, "host"), write)
	b.ReportAllocs()
	for b.Loop() {
		if err := x.run(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*batchSize)/b.Elapsed().Seconds(), "commands/s")
}

func BenchmarkRead4KiB(b *testing.B)  { benchmark(b, false) }
func BenchmarkWrite4KiB(b *testing.B) { benchmark(b, true) }

// TestManySessionsOnOneVolumeKeepTheirDataApart has sessions write, read, verify, abort and vanish at the same time,
// on real sockets.
func TestManySessionsOnOneVolumeKeepTheirDataApart(t *testing.T) {
	_, addr := overTCP(t, Config{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() { exercise(t, addr, i) })
	}
	wg.Go(func() {
		for i := range 20 {
			vanish(t, addr, i)
		}
	})
	wg.Wait()
}

// exercise works on its own part of the volume and knows what has to be there.
func exercise(t *testing.T, addr string, n int) {
	const span = 1024 // blocks
	random := rand.New(rand.NewPCG(1, uint64(n)))
	c := tcpClient(t, addr, fmt.Sprint("worker", n))
	model := make([]byte, span*512)
	base := uint32(n * span)
	for round := range 150 {
		from := random.IntN(span)
		count := 1 + random.IntN(min(span-from, 300))
		part := model[from*512 : (from+count)*512]
		if round%3 > 0 {
			copy(part, pattern(len(part), byte(round)))
			first := min(len(part), ourFirstBurst, 1+random.IntN(len(part)))
			c.send(c.command(write10(base+uint32(from), count), len(part), flagWrite), part[:first])
			c.answerR2T(t, part, first)
			if r := c.answer(); r.header[3] != 0 {
				t.Errorf("write: status %02x %x", r.header[3], r.data)
				return
			}
			continue
		}
		if got := c.good(read10(base+uint32(from), count), len(part), nil); !bytes.Equal(got, part) {
			t.Errorf("session %d, round %d: other data", n, round)
			return
		}
	}
	c.send(c.logout(), nil)
	if r := c.receive(); r.opcode() != opLogoutReply {
		t.Errorf("logout: %x", r.header)
	}
}

// vanish begins commands of all kinds and goes away.
func vanish(t *testing.T, addr string, n int) {
	c := tcpClient(t, addr, fmt.Sprint("ghost", n%3))
	const far = 100000
	c.send(c.command(read10(far, 2000), 2000*512, flagRead), nil)
	c.send(c.command(write10(far, 512), 256<<10, flagWrite), pattern(4096, 1))
	c.send(c.command(write10(far, 8), 4096, flagWrite), pattern(4096, 1))
	if n%2 == 0 {
		c.send(c.manage(abortTaskSet, reservedTag), nil)
	}
	c.conn.Close()
}
