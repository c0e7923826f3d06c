package scsi

import (
	"bytes"
	"fmt"
	"testing"

	"pstorage/blockstore/block"
)

func TestEveryFormOfWriteIsReadBackByEveryFormOfRead(t *testing.T) {
	r := newRig(t, Options{})
	writes := map[string][]byte{
		"6":        {opWrite6, 0, 0, 9, 3, 0},
		"10":       cdb10(opWrite10, 0, 9, 3),
		"12":       cdb12(opWrite12, 0, 9, 3),
		"16":       cdb16(opWrite16, 0, 9, 3),
		"10 fua":   cdb10(opWrite10, flagFUA|flagDPO, 9, 3),
		"verify10": cdb10(opWriteVerify10, 0, 9, 3),
		"verify12": cdb12(opWriteVerify12, 2, 9, 3),
		"verify16": cdb16(opWriteVerify16, 2, 9, 3),
	}
	reads := [][]byte{{opRead6, 0, 0, 9, 3, 0}, cdb10(opRead10, 0, 9, 3), cdb12(opRead12, flagDPO, 9, 3), cdb16(opRead16, flagFUA, 9, 3)}
	seed := byte(0)
	for name, cdb := range writes {
		seed++
		data := pattern(3, seed)
		r.good(cdb, data)
		for _, read := range reads {
			if got := r.in(read, len(data)); !bytes.Equal(got, data) {
				t.Fatalf("written with %s, read with %x: other data", name, read[0])
			}
		}
	}
}

func TestLengthZeroMeans256InTheSixByteFormsOnly(t *testing.T) {
	r := newRig(t, Options{})
	data := pattern(256, 1)
	r.good([]byte{opWrite6, 0, 0, 0, 0, 0}, data)
	if got := r.in([]byte{opRead6, 0, 0, 0, 0, 0}, len(data)); !bytes.Equal(got, data) {
		t.Fatal("256 blocks were not transferred")
	}
	if got := r.in(cdb10(opRead10, 0, 0, 0), 512); len(got) != 0 {
		t.Fatalf("READ(10) of no blocks returned %d bytes", len(got))
	}
}

func TestCommandsBeyondTheEndAreRefused(t *testing.T) {
	r := newRig(t, Options{})
	const end = testSize / block.SectorSize
	one := make([]byte, block.SectorSize)
	for _, op := range []byte{opRead16, opWrite16, opVerify16, opWriteVerify16, opPrefetch16, opSync16, opWriteSame16, opOrWrite16} {
		for _, lba := range []uint64{end, end + 1, 1 << 63, 1<<64 - 1} {
			r.bad(keyIllegal, ascRange, cdb16(op, 0, lba, 1), one)
		}
		task := r.bad(keyIllegal, ascRange, cdb16(op, 0, end-1, 2), append(one, one...))
		if !task.sense.hasInfo || task.sense.info != end {
			t.Errorf("%x: information %d, want the first block that is not there", op, task.sense.info)
		}
	}
	r.bad(keyIllegal, ascRange, cdb16(opRead16, 0, end+1, 0), nil)
	r.bad(keyIllegal, ascRange, append(cdb16(opCompareAndWrite, 0, end, 0)[:13], 1, 0, 0), append(one, one...))
}

func TestFieldsThatAreNotSupportedAreRefused(t *testing.T) {
	r := newRig(t, Options{})
	one := make([]byte, block.SectorSize)
	type test struct {
		cdb   []byte
		out   []byte
		field int
	}
	tests := map[string]test{
		"read protect":             {cdb10(opRead10, 0x20, 0, 1), nil, 1},
		"write protect":            {cdb16(opWrite16, 0xe0, 0, 1), one, 1},
		"verify protect":           {cdb12(opVerify12, 0x40, 0, 1), one, 1},
		"too long":                 {cdb16(opVerify16, 0, 0, (block.MaxTransfer/512)+1), nil, 10},
		"byte check 2":             {cdb10(opVerify10, 0x04, 0, 1), one, 1},
		"write verify 2":           {cdb10(opWriteVerify10, 0x04, 0, 1), one, 1},
		"write same anchor":        {cdb16(opWriteSame16, flagUnmap|flagAnchor, 0, 1), one, 1},
		"write same to the end":    {cdb16(opWriteSame16, flagUnmap, 0, 0), one, 10},
		"write same 10 to the end": {cdb10(opWriteSame10, flagUnmap, 0, 0), one, 7},
		"unmap anchor":             {[]byte{opUnmap, 1, 0, 0, 0, 0, 0, 0, 24, 0}, make([]byte, 24), 1},
		"compare of too much":      {append(cdb16(opCompareAndWrite, 0, 0, 0)[:13], (block.MaxCompare/512)+1, 0, 0), make([]byte, 258*512), 13},
		"compare with more data":   {append(cdb16(opCompareAndWrite, 0, 0, 0)[:13], 1, 0, 0), make([]byte, 2048), 13},
		"write same of more data":  {cdb10(opWriteSame10, 0, 0, 1), make([]byte, 1024), 0},
		"service action":           {[]byte{opServiceIn16, 0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0}, nil, 1},
	}
	big := newRig(t, Options{})
	big.grow(64 << 20)
	for name, x := range tests {
		use := r
		if name == "too long" {
			use = big
		}
		task := use.bad(keyIllegal, ascInvalidFieldCDB, x.cdb, x.out)
		if task.sense.field != x.field {
			t.Errorf("%s: byte %d named, want %d", name, task.sense.field, x.field)
		}
	}
	for _, cdb := range [][]byte{{0xc1}, {opVariable, 0, 0, 0, 0, 0, 0, 8}, {0xa1}} {
		r.bad(keyIllegal, ascInvalidOpcode, cdb, nil)
	}
}

func TestDeviceErrorsBecomeSenseDataThatSaysWhatToDo(t *testing.T) {
	tests := []struct {
		err  error
		key  byte
		code code
	}{
		{block.ErrNoSpace, keyDataProtect, ascSpaceAllocation},
		{block.ErrReadOnly, keyDataProtect, ascWriteProtected},
		{block.ErrRange, keyIllegal, ascRange},
		{block.ErrIO, keyMedium, ascWriteError},
		{block.ErrCorrupt, keyMedium, ascWriteError},
		{block.ErrUnavailable, keyNotReady, ascBecomingReady},
		{block.ErrLostLease, keyNotReady, ascBecomingReady},
		{block.ErrClosed, keyNotReady, ascBecomingReady},
		{block.ErrInvalid, keyHardware, ascInternal},
		{fmt.Errorf("something else"), keyHardware, ascInternal},
	}
	for _, x := range tests {
		r := newRig(t, Options{})
		f := &faulty{Device: r.mem, fail: map[block.Op]error{block.Write: fmt.Errorf("volume v: %w", x.err)}}
		r.lu.dev = f
		for _, cdb := range [][]byte{cdb10(opWrite10, 0, 5, 1), cdb16(opWriteVerify16, 0, 5, 1), cdb10(opWriteSame10, 0, 5, 1)} {
			r.bad(x.key, x.code, cdb, pattern(1, 1))
		}
	}
}

func TestReadErrorsNameTheBlock(t *testing.T) {
	r := newRig(t, Options{})
	r.lu.dev = &faulty{Device: r.mem, fail: map[block.Op]error{block.Read: block.ErrCorrupt}}
	for _, cdb := range [][]byte{cdb10(opRead10, 0, 77, 2), cdb10(opVerify10, 0, 77, 2), cdb16(opVerify16, 2, 77, 2)} {
		if task := r.bad(keyMedium, ascReadError, cdb, pattern(2, 0)); task.sense.info != 77 {
			t.Errorf("%x: block %d named, want 77", cdb[0], task.sense.info)
		}
	}
	r.bad(keyMedium, ascReadError, cdb16(opOrWrite16, 0, 77, 1), pattern(1, 0))
}

func TestVerifyFindsTheFirstByteThatDiffers(t *testing.T) {
	r := newRig(t, Options{})
	const blocks = 2*scratchSize/block.SectorSize + 3
	data := pattern(blocks, 9)
	r.good(cdb16(opWrite16, 0, 1, blocks), data)
	r.good(cdb16(opVerify16, 2, 1, blocks), data)
	r.good(cdb16(opVerify16, 0, 1, blocks), nil)
	for _, at := range []int{0, 511, scratchSize - 1, scratchSize, len(data) - 1} {
		wrong := bytes.Clone(data)
		wrong[at] ^= 1
		if task := r.bad(keyMiscompare, ascMiscompare, cdb16(opVerify16, 2, 1, blocks), wrong); task.sense.info != uint64(at) {
			t.Errorf("difference at %d, told %d", at, task.sense.info)
		}
	}
}

func TestVerifyWithOneBlockComparesEachBlockWithIt(t *testing.T) {
	r := newRig(t, Options{})
	one := pattern(1, 3)
	r.good(cdb16(opWriteSame16, 0, 4, 10), one)
	r.good(cdb16(opVerify16, 6, 4, 10), one)
	task := r.bad(keyMiscompare, ascMiscompare, cdb16(opVerify16, 6, 4, 11), one)
	if task.sense.info < 10*block.SectorSize {
		t.Errorf("difference told at %d, before the block that differs", task.sense.info)
	}
}

func TestCompareAndWriteWritesOnlyWhatCompares(t *testing.T) {
	r := newRig(t, Options{})
	old, fresh := pattern(2, 1), pattern(2, 2)
	r.good(cdb16(opWrite16, 0, 8, 2), old)
	caw := append(cdb16(opCompareAndWrite, 0, 8, 0)[:13], 2, 0, 0)
	wrong := bytes.Clone(old)
	wrong[700] ^= 1
	if task := r.bad(keyMiscompare, ascMiscompare, caw, append(wrong, fresh...)); task.sense.info != 700 {
		t.Errorf("difference told at %d, want 700", task.sense.info)
	}
	if !bytes.Equal(r.read(8, 2), old) {
		t.Fatal("written although it differed")
	}
	r.good(caw, append(bytes.Clone(old), fresh...))
	if !bytes.Equal(r.read(8, 2), fresh) {
		t.Fatal("not written although it was equal")
	}
}

func TestOrWriteSetsBitsAndKeepsOthers(t *testing.T) {
	r := newRig(t, Options{})
	const blocks = orPiece/block.SectorSize + 5
	a, b := pattern(blocks, 0x5a), pattern(blocks, 0x33)
	r.good(cdb16(opWrite16, 0, 2, blocks), a)
	r.good(cdb16(opOrWrite16, 0, 2, blocks), b)
	for i := range a {
		a[i] |= b[i]
	}
	if !bytes.Equal(r.read(2, blocks), a) {
		t.Fatal("not the union of old and new bits")
	}
}

// rival changes a block between another's read and compare.
type rival struct {
	block.Device
	times int
}

func (v *rival) Submit(batch []*block.Request) {
	if batch[0].Op == block.CompareAndWrite && v.times > 0 {
		v.times--
		w := &block.Request{Op: block.Write, Offset: batch[0].Offset, Length: 512, Data: pattern(1, byte(v.times)), Done: make(waiter, 1)}
		v.Device.Submit([]*block.Request{w})
	}
	v.Device.Submit(batch)
}

func TestOrWriteStartsOverWhenOthersWriteAndGivesWayInTheEnd(t *testing.T) {
	r := newRig(t, Options{})
	r.lu.dev = &rival{r.mem, 3}
	r.good(cdb16(opOrWrite16, 0, 0, 1), pattern(1, 0xf0))
	want := pattern(1, 0)
	for i, b := range pattern(1, 0xf0) {
		want[i] |= b
	}
	if !bytes.Equal(r.read(0, 1), want) {
		t.Fatal("a change of another was lost")
	}
	r.lu.dev = &rival{r.mem, maxOrRetries + 1}
	if task := r.run(cdb16(opOrWrite16, 0, 0, 1), pattern(1, 1), 0); task.Status != Busy {
		t.Fatalf("status %02x after many collisions, want BUSY", task.Status)
	}
}

func TestWriteThatEndsWithinABlockKeepsTheRestOfIt(t *testing.T) {
	r := newRig(t, Options{})
	old, data := pattern(3, 1), pattern(3, 2)
	for _, op := range []byte{opWrite10, opWriteVerify10} {
		r.good(cdb10(opWrite10, 0, 0, 3), old)
		task := r.run(cdb10(op, 0, 0, 3), data[:700], 0)
		if task.Status != Good || task.OutWant != 3*512 {
			t.Fatalf("%x: status %02x, wanted %d bytes", op, task.Status, task.OutWant)
		}
		if want := append(bytes.Clone(data[:700]), old[700:]...); !bytes.Equal(r.read(0, 3), want) {
			t.Fatalf("%x: not exactly the bytes sent were written", op)
		}
	}
}

func TestReadTellsHowMuchDidNotFit(t *testing.T) {
	r := newRig(t, Options{})
	r.good(cdb10(opWrite10, 0, 0, 2), pattern(2, 1))
	for _, room := range []int{0, 200, 512, 1000} {
		task := r.run(cdb10(opRead10, 0, 0, 2), nil, room)
		if task.Status != Good || task.InLen != 1024 || !bytes.Equal(task.Buf[:room], pattern(2, 1)[:room]) {
			t.Errorf("room %d: status %02x, %d bytes", room, task.Status, task.InLen)
		}
	}
}

func TestDurabilityAskedForReachesTheDevice(t *testing.T) {
	r := newRig(t, Options{})
	r.grow(512 << 20)
	f := &faulty{Device: r.mem}
	r.lu.dev = f
	last := func() block.Request { return f.asked[len(f.asked)-1] }
	r.good(cdb10(opWrite10, 0, 0, 1), pattern(1, 1))
	if last().Flags&block.FUA != 0 {
		t.Error("plain write is durable")
	}
	r.good(cdb10(opWrite10, flagFUA, 0, 1), pattern(1, 1))
	if last().Flags&block.FUA == 0 {
		t.Error("FUA got lost")
	}
	r.good([]byte{opWrite6, flagFUA, 0, 0, 1, 0}, pattern(1, 1))
	if last().Flags&block.FUA != 0 {
		t.Error("address bits of WRITE(6) were taken for FUA")
	}
	r.good(cdb10(opWriteVerify10, 0, 0, 1), pattern(1, 1))
	if w := f.asked[len(f.asked)-2]; w.Op != block.Write || w.Flags&block.FUA == 0 {
		t.Error("WRITE AND VERIFY does not write durably")
	}
	r.good(cdb10(opSync10, 2, 0, 0), nil)
	if last().Op != block.Flush {
		t.Error("SYNCHRONIZE CACHE did not flush")
	}
}

func TestReadAndWriteAllocateNothing(t *testing.T) {
	r := newRig(t, Options{})
	task := &Task{}
	buf := make([]byte, 4096)
	done := &counter{}
	task.Req.Done = done
	batch := []*block.Request{&task.Req}
	run := func(cdb []byte, in, out int) {
		task.Reset()
		copy(task.CDB[:], cdb)
		task.CDBLen, task.InMax, task.OutMax = 16, in, out
		r.Prepare(task)
		task.Buf = buf[:task.BufLen]
		if task.Start() == Submit {
			r.lu.Submit(batch)
			task.Step()
		}
	}
	read, write := cdb16(opRead16, 0, 0, 8), cdb10(opWrite10, 0, 0, 8)
	run(write, 0, 4096)
	if n := testing.AllocsPerRun(100, func() { run(read, 4096, 0); run(write, 0, 4096) }); n != 0 {
		t.Fatalf("%v allocations per READ and WRITE", n)
	}
	if task.Status != Good || done.n == 0 {
		t.Fatal("nothing was done")
	}
}

type counter struct{ n int }

func (c *counter) Complete(batch []*block.Request) { c.n += len(batch) }
