package nbd

import (
	"fmt"
	"testing"

	"pstorage/blockstore/block"
)

// BenchmarkTurn is what the server does for a request between its system calls, the device's copying included.
func BenchmarkTurn(b *testing.B) {
	for _, size := range []uint64{4 << 10, 128 << 10} {
		for cmd, name := range []string{cmdRead: "read", cmdWrite: "write"} {
			b.Run(fmt.Sprintf("%s/%dk", name, size>>10), func(b *testing.B) { benchmarkTurn(b, uint16(cmd), size) })
		}
	}
}

func benchmarkTurn(b *testing.B, cmd uint16, size uint64) {
	var batch []byte
	for i := range uint64(32) {
		batch = append(batch, encodeRequest(header{cmd: cmd, cookie: i, offset: i * 128 << 10, length: size}, nil)...)
		if cmd == cmdWrite {
			batch = append(batch, make([]byte, size)...)
		}
	}
	l := newReel(nil)
	l.repeat = batch
	c := reelConn(b, l, block.NewMemory(8<<20), terms{})
	if err := c.begin(); err != nil {
		b.Fatal(err)
	}
	defer c.dropReceived()
	for b.Loop() {
		if err := c.turn(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(c.counters.commands[cmd].count), "ns/request")
}
