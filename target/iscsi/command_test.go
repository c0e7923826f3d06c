package iscsi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
	"testing/synctest"

	"pstorage/blockstore/block"
)

func TestDataWrittenInEveryWayIsReadBack(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		const n = 300 << 10
		data := pattern(n, 3)
		first := ourFirstBurst
		ways := map[string]func(){
			"immediate, then R2T": func() {
				h := c.command(write10(0, n/512), n, flagWrite)
				c.send(h, data[:first])
				c.answerR2T(t, data, first)
			},
			"unasked, then R2T": func() {
				h := c.command(write10(0, n/512), n, flagWrite)
				h[1] &^= flagFinal
				c.send(h, nil)
				half := first / 2
				c.send(c.dataOut(c.tag, reservedTag, 0, 0, false), data[:half])
				c.send(c.dataOut(c.tag, reservedTag, 1, half, true), data[half:first])
				c.answerR2T(t, data, first)
			},
			"immediate and unasked": func() {
				h := c.command(write10(0, n/512), n, flagWrite)
				h[1] &^= flagFinal
				c.send(h, data[:1000])
				c.send(c.dataOut(c.tag, reservedTag, 0, 1000, true), data[1000:first])
				c.answerR2T(t, data, first)
			},
			"R2T only": func() {
				c.send(c.command(write10(0, n/512), n, flagWrite), nil)
				c.answerR2T(t, data, 0)
			},
		}
		for name, write := range ways {
			c.good(write10(0, n/512), 0, nil0(c, n))
			write()
			if r := c.answer(); r.header[3] != 0 {
				t.Fatalf("%s: status %02x %x", name, r.header[3], r.data)
			}
			if got := c.good(read10(0, n/512), n, nil); !bytes.Equal(got, data) {
				t.Fatalf("%s: other data read", name)
			}
		}
	})
}

// nil0 writes zeros over n bytes with WRITE SAME and returns no data, so that good's command writes nothing.
func nil0(c *client, n int) []byte {
	ws := make([]byte, 10)
	ws[0] = 0x41
	binary.BigEndian.PutUint16(ws[7:], uint16(n/512))
	c.good(ws, 0, make([]byte, 512))
	return nil
}

// answerR2T sends what R2Ts ask for, in PDUs of up to 64 KiB, until all data is sent. from is what was sent already.
func (c *client) answerR2T(t *testing.T, data []byte, from int) {
	t.Helper()
	for sn := uint32(0); from < len(data); sn++ {
		r := c.receive()
		if r.opcode() != opR2T || r.u32(36) != sn || int(r.u32(40)) != from {
			t.Fatalf("instead of an R2T for %d: %x", from, r.header)
		}
		end := from + int(r.u32(44))
		for i := 0; from < end; i++ {
			n := min(end-from, 64<<10)
			c.send(c.dataOut(r.tag(), r.u32(20), i, from, from+n == end), data[from:from+n])
			from += n
		}
	}
}

func TestReadIsCutToWhatTheInitiatorTakes(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session("InitiatorName=iqn.test:host", "TargetName="+DefaultPrefix+"disk", "MaxRecvDataSegmentLength=1536", "MaxBurstLength=4096")
		data := pattern(10240, 1)
		c.send(c.command(write10(0, 20), len(data), flagWrite), nil)
		c.answerR2T(t, data, 0)
		c.answer()
		c.send(c.command(read10(0, 20), len(data), flagRead), nil)
		var got []byte
		for sn := uint32(0); ; sn++ {
			r := c.receive()
			if r.opcode() != opDataIn || r.u32(36) != sn || int(r.u32(40)) != len(got) || len(r.data) > 1536 {
				t.Fatalf("PDU %d: %x", sn, r.header)
			}
			got = append(got, r.data...)
			if wantFinal := len(got)%4096 == 0 || len(got) == len(data); r.final() != wantFinal {
				t.Errorf("final %v at %d", r.final(), len(got))
			}
			if r.header[1]&flagStatus != 0 {
				break
			}
		}
		if !bytes.Equal(got, data) {
			t.Error("other data")
		}
	})
}

func TestResidualsTellWhatWasNotTransferred(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		for _, x := range []struct {
			cdb      []byte
			room     int
			out      []byte
			flags    byte
			residual uint32
			data     int
		}{
			{read10(0, 2), 1024, nil, 0, 0, 1024},
			{read10(0, 2), 2000, nil, flagUnderflow, 976, 1024},
			{read10(0, 2), 200, nil, flagOverflow, 824, 200},
			{read10(0, 2), 0, nil, flagOverflow, 1024, 0},
			{[]byte{0x12, 0, 0, 0, 36, 0}, 36, nil, 0, 0, 36},
			{[]byte{0x12, 0, 0, 0, 36, 0}, 255, nil, flagUnderflow, 219, 36},
			{[]byte{0x12, 0, 0, 0, 255, 0}, 7, nil, flagOverflow, 89, 7},
			{write10(0, 1), 0, make([]byte, 512), 0, 0, 0},
			{write10(0, 1), 0, make([]byte, 1024), flagUnderflow, 512, 0},
			{write10(0, 2), 0, make([]byte, 512), flagOverflow, 512, 0},
			{tur(), 100, nil, flagUnderflow, 100, 0},
		} {
			r := c.do(x.cdb, x.room, x.out)
			if flags := r.header[1] & (flagOverflow | flagUnderflow); r.header[3] != 0 || flags != x.flags || r.u32(44) != x.residual || len(r.data) != x.data {
				t.Errorf("%x, %d bytes: status %02x, flags %x, residual %d, %d bytes of data", x.cdb, x.room+len(x.out), r.header[3], flags, r.u32(44), len(r.data))
			}
		}
	})
}

func TestDataThatBreaksTheRulesFailsTheCommandAndIsNotWritten(t *testing.T) {
	const n = 128 << 10
	type step struct {
		sn, offset, length int
		final              bool
	}
	tests := map[string]struct {
		code  uint16
		steps []step
	}{
		"DataSN again":    {0x4b00, []step{{0, 0, 65536, false}, {0, 65536, 65536, true}}},
		"DataSN wild":     {0x4b00, []step{{27, 0, n, true}}},
		"DataSN swapped":  {0x4b00, []step{{1, 0, 65536, false}, {0, 65536, 65536, true}}},
		"offset":          {0x4b05, []step{{0, 512, n - 512, true}}},
		"gap":             {0x4b05, []step{{0, 0, 65536, false}, {1, 70000, 1000, true}}},
		"too much":        {0x0c0c, []step{{0, 0, 65536, false}, {1, 65536, 65540, true}}},
		"final too early": {0x4b00, []step{{0, 0, 512, true}}},
	}
	for name, x := range tests {
		t.Run(name, func(t *testing.T) {
			within(t, Config{}, func(t *testing.T, p *portal) {
				c := p.session()
				c.send(c.command(write10(0, n/512), n, flagWrite), nil)
				r := c.receive()
				for _, s := range x.steps {
					c.send(c.dataOut(c.tag, r.u32(20), s.sn, s.offset, s.final), pattern(s.length, 7))
				}
				c.expectSense(c.answer(), 0xb, x.code)
				if got := c.good(read10(0, 8), 4096, nil); !bytes.Equal(got, make([]byte, 4096)) {
					t.Error("something was written")
				}
			})
		})
	}
}

func TestDataNobodyAskedForFailsTheCommand(t *testing.T) {
	for name, keys := range map[string][]string{"ImmediateData": {"ImmediateData=No", "InitialR2T=No"}, "InitialR2T": {"InitialR2T=Yes"}} {
		t.Run(name, func(t *testing.T) {
			within(t, Config{}, func(t *testing.T, p *portal) {
				c := p.session(append([]string{"InitiatorName=iqn.test:host", "TargetName=" + DefaultPrefix + "disk"}, keys...)...)
				h := c.command(write10(0, 1), 512, flagWrite)
				if name == "InitialR2T" {
					h[1] &^= flagFinal
					c.send(h, nil)
					c.send(c.dataOut(c.tag, reservedTag, 0, 0, true), pattern(512, 1))
				} else {
					c.send(h, pattern(512, 1))
				}
				c.expectSense(c.answer(), 0xb, 0x0c0c)
				c.send(c.command(read10(0, 1), 512, 0), pattern(512, 1)) // data with a command that writes none
				c.expectSense(c.answer(), 0xb, 0x0c0c)
				c.good(tur(), 0, nil)
			})
		})
	}
}

func TestDataOfNoCommandIsDropped(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		c.send(c.dataOut(0x999, reservedTag, 0, 0, true), pattern(512, 1))
		c.send(c.command(write10(0, 256), 128<<10, flagWrite), nil)
		r := c.receive()
		c.send(c.dataOut(c.tag, r.u32(20)+1, 0, 0, true), pattern(512, 1))
		c.send(c.dataOut(c.tag, reservedTag, 0, 0, true), pattern(512, 1))
		data := pattern(128<<10, 2)
		c.send(c.dataOut(c.tag, r.u32(20), 0, 0, true), data)
		if a := c.answer(); a.header[3] != 0 {
			t.Errorf("status %02x", a.header[3])
		}
	})
}

func TestCommandsOutsideTheWindowAreIgnored(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		for _, sn := range []uint32{c.cmdSN - 1, c.cmdSN - 50, c.cmdSN + defaultQueue, c.cmdSN + 1<<30} {
			h := c.command(tur(), 0, 0)
			c.cmdSN--
			h.put(24, sn)
			c.send(h, nil)
		}
		h := c.command(tur(), 0, 0)
		c.send(h, nil)
		if r := c.answer(); r.tag() != h.tag() || r.u32(28) != c.cmdSN {
			t.Errorf("answered tag %x, want %x", r.tag(), h.tag())
		}
	})
}

func TestSkippedCommandNumberEndsTheSession(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		c.cmdSN++
		c.send(c.command(tur(), 0, 0), nil)
		c.closed()
	})
}

func TestImmediateCommandsTakeNoNumber(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		for range 3 {
			h := c.command(tur(), 0, 0)
			h[0] |= flagImmediate
			c.cmdSN--
			c.send(h, nil)
			if r := c.answer(); r.u32(28) != c.cmdSN {
				t.Errorf("ExpCmdSN %d, want %d", r.u32(28), c.cmdSN)
			}
		}
		c.good(tur(), 0, nil)
	})
}

func TestTagInUseIsRejected(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		c.send(c.command(write10(0, 256), 128<<10, flagWrite), nil)
		r2t := c.receive()
		h := c.command(tur(), 0, 0)
		h.put(16, r2t.tag())
		c.send(h, nil)
		if r := c.receive(); r.opcode() != opReject || r.header[2] != rejectInProgress || !bytes.Equal(r.data, h) {
			t.Errorf("answer: %x", r.header)
		}
		h = c.command(tur(), 0, 0)
		h.put(16, reservedTag)
		c.send(h, nil)
		if r := c.receive(); r.opcode() != opReject {
			t.Errorf("reserved tag: %x", r.header)
		}
	})
}

func TestWindowClosesWithTheQueueAndOpensAgain(t *testing.T) {
	within(t, Config{Queue: 4}, func(t *testing.T, p *portal) {
		g := newGated(p.shelf.devs["disk"])
		p.shelf.devs["disk"] = g
		c := p.session()
		start := c.cmdSN
		for range 6 { // two more than there is room for: they are ignored
			c.send(c.command(read10(0, 1), 512, flagRead), nil)
		}
		h := c.newHeader(opNopOut | flagImmediate)
		h[1] = flagFinal
		h.put(16, 0x777)
		h.put(20, reservedTag)
		c.send(h, nil)
		if r := c.receive(); r.opcode() != opNopIn || r.u32(28) != start+4 || r.u32(32) != start+3 {
			t.Errorf("ExpCmdSN %d, MaxCmdSN %d, want %d and %d", r.u32(28), r.u32(32), start+4, start+3)
		}
		c.cmdSN = start + 4
		go g.release()
		last := uint32(0)
		for range 4 {
			last = c.answer().u32(32)
		}
		if last != start+7 {
			t.Errorf("MaxCmdSN %d after all answers, want %d", last, start+7)
		}
		c.good(tur(), 0, nil)
	})
}

func TestSerialNumbersRiseInTheOrderOfSending(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		var all []byte
		for i := range 50 {
			cdb, flags, room := tur(), byte(0), 0
			if i%2 == 0 {
				cdb, flags, room = read10(uint32(i), 1), flagRead, 512
			}
			all = append(all, c.encode(c.command(cdb, room, flags), nil)...)
		}
		go c.conn.Write(all)
		next := uint32(0)
		for i := range 50 {
			sn := c.answer().u32(24)
			if i > 0 && sn != next {
				t.Fatalf("StatSN %d, want %d", sn, next)
			}
			next = sn + 1
		}
	})
}

func TestPingIsAnsweredWithItsData(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		for _, data := range []string{"", "ping", "some more to say"} {
			h := c.newHeader(opNopOut | flagImmediate)
			h[1] = flagFinal
			h.put(16, 0x42)
			h.put(20, reservedTag)
			h.put(24, c.cmdSN)
			c.send(h, []byte(data))
			if r := c.receive(); r.opcode() != opNopIn || r.tag() != 0x42 || r.u32(20) != reservedTag || string(r.data) != data {
				t.Errorf("%q: %x %q", data, r.header, r.data)
			}
		}
	})
}

func TestRequestsThatAreNotSupportedAreRejected(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		for op, reason := range map[byte]byte{opSNACK: rejectSNACK, 0x1c: rejectUnsupported, 0x3e: rejectUnsupported} {
			h := c.newHeader(op | flagImmediate)
			h.put(24, c.cmdSN)
			c.send(h, nil)
			if r := c.receive(); r.opcode() != opReject || r.header[2] != reason || r.tag() != reservedTag || !bytes.Equal(r.data, h) {
				t.Errorf("%02x: %x", op, r.header)
			}
		}
	})
}

func TestOtherLUNsHaveNothing(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		to := func(lun byte, cdb []byte, room int) pdu {
			h := c.command(cdb, room, flagRead)
			h[9] = lun
			c.send(h, nil)
			return c.answer()
		}
		if r := to(0, []byte{0x12, 0, 0, 0, 36, 0}, 36); r.header[3] != 0 || r.data[0] != 0x3f {
			t.Errorf("INQUIRY of LUN 0: %x", r.data)
		}
		if r := to(5, []byte{0x12, 0, 0, 0, 36, 0}, 36); r.data[0] != 0x7f {
			t.Errorf("INQUIRY of LUN 5: %x", r.data)
		}
		if r := to(0, []byte{0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 64, 0, 0}, 64); fmt.Sprintf("%x", r.data) != "00000008000000000001000000000000" {
			t.Errorf("REPORT LUNS: %x", r.data)
		}
		c.expectSense(to(5, read10(0, 1), 512), 5, 0x2500)
		h := c.command(write10(0, 1), 512, flagWrite)
		h[9] = 5
		c.send(h, pattern(512, 1))
		c.expectSense(c.answer(), 5, 0x2500)
	})
}

func TestDeviceErrorsReachTheInitiator(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		p.shelf.devs["disk"] = &failing{Device: p.shelf.devs["disk"], err: fmt.Errorf("volume disk: %w", block.ErrNoSpace)}
		c := p.session()
		c.expectSense(c.do(write10(0, 1), 0, pattern(512, 1)), 7, 0x2707)
		c.expectSense(c.do(read10(0, 1), 512, nil), 7, 0x2707)
		c.good(tur(), 0, nil)
	})
}

// failing fails every request, on another goroutine and later.
type failing struct {
	block.Device
	err error
}

func (f *failing) Submit(batch []*block.Request) {
	kept := append([]*block.Request(nil), batch...)
	go func() {
		for _, r := range kept {
			r.Err = f.err
			r.Done.Complete([]*block.Request{r})
		}
	}()
}

func TestSlowVolumeDoesNotHoldUpAnother(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		g := newGated(p.shelf.devs["disk"])
		p.shelf.devs["disk"] = g
		slow := p.session()
		slow.send(slow.command(read10(0, 1), 512, flagRead), nil)
		<-g.came
		fast := p.session("InitiatorName=iqn.test:host", "TargetName="+DefaultPrefix+"other")
		fast.good(read10(0, 1), 512, nil)
		slow.good(tur(), 0, nil) // nor its own commands that need no device
		go g.release()
		slow.answer()
	})
}

func TestClientGoneInTheMiddleOfABurstLeavesNothing(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		g := newGated(p.shelf.devs["disk"])
		p.shelf.devs["disk"] = g
		c := p.session()
		c.send(c.command(write10(0, 8192), 4<<20, flagWrite), pattern(4096, 1))
		r := c.receive()
		c.send(c.dataOut(c.tag, r.u32(20), 0, 4096, false), pattern(65536, 1))
		c.send(c.command(read10(0, 8192), 4<<20, flagRead), nil)
		<-g.came
		c.conn.Write(c.dataOut(c.tag-1, r.u32(20), 1, 4096+65536, false)[:30])
		c.conn.Close()
		synctest.Wait()
		g.release()
		// end() finds what is left
	})
}
