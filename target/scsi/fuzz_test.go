package scsi

import (
	"bytes"
	"testing"

	"pstorage/blockstore/block"
)

// FuzzCommand executes any CDB with any data: it ends, with a status that fits, keeps within its buffers, and a
// refused command leaves the medium as it was.
func FuzzCommand(f *testing.F) {
	for i := range commands {
		c := &commands[i]
		cdb := make([]byte, 16)
		cdb[0] = c.op
		if c.action >= 0 {
			cdb[1] = byte(c.action)
		}
		f.Add(cdb, []byte{}, uint16(512))
		cdb[4], cdb[8], cdb[13] = 1, 1, 1
		f.Add(cdb, pattern(2, 1), uint16(4096))
	}
	f.Fuzz(func(t *testing.T, cdb, out []byte, room uint16) {
		if len(out) > 1<<16 {
			return
		}
		r := newRig(t, Options{Removable: true})
		r.mem.Grow(64 << 20) // some transfers are too long for a test otherwise
		want := pattern(16, 1)
		r.takeAttention()
		r.good(cdb16(opWrite16, 0, 0, 16), want)
		r.takeAttention()
		task := &Task{}
		task.Reset()
		copy(task.CDB[:], cdb)
		task.CDBLen, task.OutMax, task.InMax = len(cdb), len(out), int(room)
		r.execute(task, out)
		switch task.Status {
		case Good:
			if task.InLen > 0 && task.BufLen < min(task.InLen, task.InMax) {
				t.Fatalf("%d bytes of data-in in a buffer of %d", task.InLen, task.BufLen)
			}
		case CheckCondition:
			if task.sense.key == keyNoSense || len(task.AppendSense(nil)) < 8 {
				t.Fatalf("CHECK CONDITION without sense: %s", describeSense(task))
			}
			got := make([]byte, len(want))
			q := &block.Request{Op: block.Read, Data: got, Length: int64(len(got)), Done: make(waiter, 1)}
			r.mem.Submit([]*block.Request{q})
			if !bytes.Equal(got, want) {
				t.Fatal("a refused command wrote")
			}
		case Busy, ReservationConflict:
		default:
			t.Fatalf("status %02x", task.Status)
		}
	})
}
