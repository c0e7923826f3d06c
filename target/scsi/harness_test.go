package scsi

import (
	"bytes"
	"encoding/binary"
	"testing"

	"pstorage/blockstore/block"
)

const testSize = 4 << 20

// rig is an LU on memory with one initiator.
type rig struct {
	t   testing.TB
	mem *block.Memory
	lu  *LU
	*Nexus
}

func newRig(t testing.TB, o Options) *rig {
	t.Helper()
	mem := block.NewMemory(testSize)
	r := &rig{t: t, mem: mem, lu: NewLU(mem, block.VolumeInfo{Name: "v", ID: [16]byte{1, 2, 3}}, o)}
	t.Cleanup(r.lu.Close)
	r.Nexus = r.attach("iqn.test:a,i,0x000000000001")
	return r
}

// attach adds an initiator and takes the unit attention it begins with.
func (r *rig) attach(name string) *Nexus {
	n := r.lu.Attach(Port{Initiator: name, Target: "iqn.test:v", LUN: 1 << 48}, nil)
	n.takeAttention()
	return n
}

// on does the same as rig, for another initiator.
func (r *rig) on(n *Nexus) *rig {
	c := *r
	c.Nexus = n
	return &c
}

// grow makes the device larger and takes the unit attention for it.
func (r *rig) grow(size int64) {
	r.mem.Grow(size)
	r.lu.capacity()
	r.takeAttention()
}

// waiter receives completions.
type waiter chan *block.Request

func (w waiter) Complete(batch []*block.Request) {
	for _, r := range batch {
		w <- r
	}
}

// run executes a command as a transport would. The initiator has room for room bytes of data-in.
func (r *rig) run(cdb []byte, out []byte, room int) *Task {
	r.t.Helper()
	t := &Task{}
	t.Reset()
	copy(t.CDB[:], cdb)
	t.CDBLen, t.OutMax, t.InMax = 16, len(out), room
	return r.execute(t, out)
}

func (r *rig) execute(t *Task, out []byte) *Task {
	done := make(waiter, 1)
	t.Req.Done = done
	r.Prepare(t)
	if t.OutLen > len(out) || t.BufLen < t.OutLen {
		r.t.Fatalf("%v: wants %d bytes of %d in a buffer of %d", t.CDB, t.OutLen, len(out), t.BufLen)
	}
	if !t.failed() {
		t.Buf = make([]byte, t.BufLen)
		copy(t.Buf, out[:t.OutLen])
	}
	verdict := t.Start()
	if verdict == Submit {
		r.lu.Submit([]*block.Request{&t.Req})
	}
	for verdict != Done {
		<-done
		if t.Step() {
			break
		}
	}
	return t
}

// in returns the data-in of a command that has to succeed.
func (r *rig) in(cdb []byte, room int) []byte {
	r.t.Helper()
	t := r.run(cdb, nil, room)
	if t.Status != Good {
		r.t.Fatalf("%x: %s", cdb, describeSense(t))
	}
	return t.Buf[:min(t.InLen, room)]
}

// good runs a command that has to succeed.
func (r *rig) good(cdb []byte, out []byte) *Task {
	r.t.Helper()
	t := r.run(cdb, out, 0)
	if t.Status != Good {
		r.t.Fatalf("%x: %s", cdb, describeSense(t))
	}
	return t
}

// bad runs a command that has to fail with key and code.
func (r *rig) bad(key byte, c code, cdb []byte, out []byte) *Task {
	r.t.Helper()
	t := r.run(cdb, out, 1<<16)
	if t.Status != CheckCondition || t.sense.key != key || t.sense.code != c {
		r.t.Fatalf("%x: status %02x, %s; want %x %04x", cdb, t.Status, describeSense(t), key, uint16(c))
	}
	return t
}

func describeSense(t *Task) string {
	return string(bytes.ToUpper([]byte(hexOf(t.AppendSense(nil)))))
}

func hexOf(b []byte) string {
	const digits = "0123456789abcdef"
	var s []byte
	for _, c := range b {
		s = append(s, digits[c>>4], digits[c&15])
	}
	return string(s)
}

// cdb10 and cdb16 make CDBs of the usual forms.
func cdb10(op, flags byte, lba uint32, blocks uint16) []byte {
	b := make([]byte, 10)
	b[0], b[1] = op, flags
	binary.BigEndian.PutUint32(b[2:], lba)
	binary.BigEndian.PutUint16(b[7:], blocks)
	return b
}

func cdb12(op, flags byte, lba, blocks uint32) []byte {
	b := make([]byte, 12)
	b[0], b[1] = op, flags
	binary.BigEndian.PutUint32(b[2:], lba)
	binary.BigEndian.PutUint32(b[6:], blocks)
	return b
}

func cdb16(op, flags byte, lba uint64, blocks uint32) []byte {
	b := make([]byte, 16)
	b[0], b[1] = op, flags
	binary.BigEndian.PutUint64(b[2:], lba)
	binary.BigEndian.PutUint32(b[10:], blocks)
	return b
}

func pattern(blocks int, seed byte) []byte {
	b := make([]byte, blocks*block.SectorSize)
	for i := range b {
		b[i] = byte(i/block.SectorSize*7+i) ^ seed
	}
	return b
}

// read reads blocks through READ(16).
func (r *rig) read(lba uint64, blocks uint32) []byte {
	r.t.Helper()
	return r.in(cdb16(opRead16, 0, lba, blocks), int(blocks)*block.SectorSize)
}

// faulty is a device that answers chosen operations with errors, and notes what it was asked.
type faulty struct {
	block.Device
	fail  map[block.Op]error
	asked []block.Request
}

func (f *faulty) Submit(batch []*block.Request) {
	for _, r := range batch {
		f.asked = append(f.asked, *r)
		if err := f.fail[r.Op]; err != nil {
			r.Err = err
			r.Done.Complete([]*block.Request{r})
			continue
		}
		f.Device.Submit([]*block.Request{r})
	}
}
