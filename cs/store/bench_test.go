package store

import (
	"sync/atomic"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

const benchBlocks = 64 << 20 / bs

// benchStore is a store on the real file system, with one chunk of 64 MiB that is open.
func benchStore(b *testing.B) *Store {
	dir := b.TempDir() + "/cs"
	created(b, disk.OS{}, dir)
	s := opened(b, disk.OS{}, dir, Options{Reserve: -1})
	b.Cleanup(func() { _ = s.Close() })
	p := preparation(idA)
	p.Blocks = benchBlocks
	must(b, s.Prepare([]Preparation{p})[0])
	for off := uint32(0); off < benchBlocks*bs; off += 1 << 20 {
		must(b, write(s, idA, access, off, pattern(uint64(off), 1<<20)))
	}
	must(b, s.Flush(7, 1))
	return s
}

func benchWrite(b *testing.B, size uint32) {
	s := benchStore(b)
	n := uint32(benchBlocks * bs / size)
	data := pattern(1, int(size))
	sums := make([][]uint32, n)
	for i := range sums {
		sums[i] = sumsOf(idA, uint32(i)*size, data)
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	at := uint32(0)
	for b.Loop() {
		at = (at + 7919) % n
		if err := s.Write(idA, access, at*size, data, sums[at], false); err != nil {
			b.Fatal(err)
		}
	}
}

func benchRead(b *testing.B, size uint32, nowait bool) {
	s := benchStore(b)
	n := uint32(benchBlocks * bs / size)
	codes, dst := make([]uint32, size/bs), make([]byte, 0, size)
	b.SetBytes(int64(size))
	b.ReportAllocs()
	at := uint32(0)
	for b.Loop() {
		at = (at + 7919) % n
		_, err := s.Read(idA, access, at*size, size, codes, dst, nowait)
		if err == ErrWouldBlock { // the kernel has taken the page away
			_, err = s.Read(idA, access, at*size, size, codes, dst, false)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWrite4K(b *testing.B)     { benchWrite(b, bs) }
func BenchmarkWrite128K(b *testing.B)   { benchWrite(b, 128<<10) }
func BenchmarkRead4K(b *testing.B)      { benchRead(b, bs, false) }
func BenchmarkRead4KNow(b *testing.B)   { benchRead(b, bs, true) }
func BenchmarkRead128KNow(b *testing.B) { benchRead(b, 128<<10, true) }

func BenchmarkWrite512(b *testing.B) {
	s := benchStore(b)
	data := pattern(1, 512)
	sums := []uint32{chunk.BlockSum(idA, 3, data)}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Write(idA, access, 3*bs+512, data, sums, false); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBlockSum(b *testing.B) {
	data := pattern(1, bs)
	b.SetBytes(bs)
	for b.Loop() {
		chunk.BlockSum(idA, 3, data)
	}
}

// benchDurable is a 4 KiB write and a flush, one after the other, by as many writers as are given.
func benchDurable(b *testing.B, journal int64, writers int) {
	withJournal = journal
	defer func() { withJournal = 0 }()
	s := benchStore(b)
	data := pattern(1, bs)
	sums := make([][]uint32, benchBlocks)
	for i := range sums {
		sums[i] = sumsOf(idA, uint32(i)*bs, data)
	}
	var turn atomic.Uint32
	b.SetParallelism(writers)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			at := turn.Add(7919) % benchBlocks
			if err := s.Write(idA, access, at*bs, data, sums[at], false); err != nil {
				b.Error(err)
			}
			if err := s.Flush(7, 1); err != nil {
				b.Error(err)
			}
		}
	})
}

func BenchmarkDurable4K(b *testing.B)           { benchDurable(b, 0, 1) }
func BenchmarkDurable4KJournal(b *testing.B)    { benchDurable(b, 256<<20, 1) }
func BenchmarkDurable4KBy8(b *testing.B)        { benchDurable(b, 0, 8) }
func BenchmarkDurable4KBy8Journal(b *testing.B) { benchDurable(b, 256<<20, 8) }

func BenchmarkWrite4KJournal(b *testing.B) {
	withJournal = 256 << 20
	defer func() { withJournal = 0 }()
	benchWrite(b, bs)
}
