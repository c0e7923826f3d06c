package iscsi

import (
	"testing"
	"testing/synctest"
	"time"
)

// memory is what sessions hold, and how many tasks they made.
func (p *portal) memory() (held int64, tasks, controls int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.sessions {
		s.mu.Lock()
		held += s.held
		tasks += len(s.tasks)
		controls += s.controls
		s.mu.Unlock()
	}
	return held, tasks, controls
}

func TestClientThatNeverReadsCostsBoundedMemory(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		for range 400 { // far beyond the window
			c.send(c.command(read10(0, 1024), 512<<10, flagRead), nil)
		}
		synctest.Wait()
		held, tasks, _ := p.memory()
		if held > p.cfg.SessionBytes || tasks > defaultQueue+maxImmediate+maxVectors {
			t.Errorf("%d bytes in %d tasks", held, tasks)
		}
		c.conn.Close()
	})
}

func TestImmediateCommandsOfAClientThatNeverReadsAreBounded(t *testing.T) {
	within(t, Config{Queue: 8}, func(t *testing.T, p *portal) {
		c := p.session()
		go func() {
			for {
				h := c.command(read10(0, 8), 4096, flagRead)
				h[0] |= flagImmediate
				c.cmdSN--
				if _, err := c.conn.Write(c.encode(h, nil)); err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		if _, tasks, controls := p.memory(); tasks > 8+maxImmediate+maxVectors || controls > maxControls+receiveBuffer/headerSize {
			t.Errorf("%d tasks, %d other replies", tasks, controls)
		}
		c.conn.Close()
	})
}

func TestPingsOfAClientThatNeverReadsAreBounded(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		go func() {
			for {
				h := c.newHeader(opNopOut | flagImmediate)
				h[1] = flagFinal
				h.put(16, 1)
				h.put(20, reservedTag)
				if _, err := c.conn.Write(c.encode(h, pattern(8000, 1))); err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		if _, _, controls := p.memory(); controls == 0 || controls > maxControls+receiveBuffer/8000 {
			t.Errorf("%d replies wait", controls)
		}
		start := time.Now()
		c.waitClosed(p)
		if took := time.Since(start); took > writeTime+tickTime {
			t.Errorf("given up after %v", took)
		}
	})
}

// waitClosed waits until the server has no session any more, reading nothing.
func (c *client) waitClosed(p *portal) {
	for {
		p.mu.Lock()
		n := len(p.sessions)
		p.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(time.Second) // of the bubble's time
	}
}

func TestSilentClientIsAskedAndThenGivenUp(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		start := time.Now()
		r := c.receive()
		if r.opcode() != opNopIn || r.tag() != reservedTag || r.u32(20) == reservedTag {
			t.Fatalf("instead of a ping: %x", r.header)
		}
		if asked := time.Since(start); asked < pingAfter || asked > pingAfter+tickTime {
			t.Errorf("asked after %v", asked)
		}
		h := c.newHeader(opNopOut | flagImmediate) // the answer keeps the session
		h[1] = flagFinal
		h.put(16, reservedTag)
		h.put(20, r.u32(20))
		c.send(h, nil)
		start = time.Now()
		c.closed()
		if took := time.Since(start); took < giveUpTime || took > giveUpTime+2*tickTime {
			t.Errorf("given up after %v", took)
		}
	})
}

func TestClientThatOwesDataIsGivenUp(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		c.send(c.command(write10(0, 256), 128<<10, flagWrite), nil)
		c.receive()
		start := time.Now()
		ended := make(chan struct{})
		go func() { // it answers pings, but sends no data
			defer close(ended)
			for {
				r, err := c.tryReceive()
				if err != nil {
					return
				}
				h := c.newHeader(opNopOut | flagImmediate)
				h[1] = flagFinal
				h.put(16, reservedTag)
				h.put(20, r.u32(20))
				c.conn.Write(h)
			}
		}()
		<-ended
		if took := time.Since(start); took > dataTime+2*tickTime {
			t.Errorf("given up after %v", took)
		}
	})
}

func TestSegmentLongerThanDeclaredClosesTheConnection(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		h := c.command(write10(0, 2048), 1<<20, flagWrite)
		h.setDataLen(ourSegment + 4)
		c.conn.Write(h)
		c.closed()
	})
}

func TestLargeCommandsWaitForMemoryAndAllGetIt(t *testing.T) {
	within(t, Config{SessionBytes: 32 << 20}, func(t *testing.T, p *portal) {
		g := p.gate()
		c := p.session()
		const n = 12 << 20 // a buffer of 16 MiB: two fit
		for range 5 {
			c.send(c.command(read10(0, n/512), n, flagRead), nil)
		}
		synctest.Wait()
		if held, _, _ := p.memory(); held != 32<<20 {
			t.Errorf("%d bytes held", held)
		}
		go g.release()
		for range 5 {
			if r := c.answer(); r.header[3] != 0 || len(r.data) != n {
				t.Fatalf("status %02x, %d bytes", r.header[3], len(r.data))
			}
		}
	})
}

func TestWritesThatWaitForMemoryKeepTheirFirstData(t *testing.T) {
	within(t, Config{SessionBytes: 32 << 20}, func(t *testing.T, p *portal) {
		c := p.session()
		const n = 20 << 20 // only one fits
		a, b := pattern(n, 1), pattern(n, 2)
		first, second := c.command(write10(0, n/512), n, flagWrite), c.command(write10(50000, n/512), n, flagWrite)
		second[1] &^= flagFinal
		c.send(first, a[:4096])
		c.send(second, b[:1000])
		c.send(c.dataOut(second.tag(), reservedTag, 0, 1000, true), b[1000:ourFirstBurst])
		c.answerR2T(t, a, 4096)
		if r := c.answer(); r.tag() != first.tag() || r.header[3] != 0 {
			t.Fatalf("answer: %x", r.header)
		}
		c.answerR2T(t, b, ourFirstBurst)
		if r := c.answer(); r.tag() != second.tag() || r.header[3] != 0 {
			t.Fatalf("answer: %x", r.header)
		}
		if got := c.good(read10(50000, n/512), n, nil); string(got) != string(b) {
			t.Error("other data read")
		}
	})
}

func TestSessionThatHoldsAllMemoryDoesNotStopOthers(t *testing.T) {
	within(t, Config{SessionBytes: 32 << 20, TotalBytes: 32 << 20}, func(t *testing.T, p *portal) {
		g := p.gate()
		greedy := p.session()
		greedy.send(greedy.command(read10(0, 50000), 25600000, flagRead), nil)
		<-g.came
		other := p.session("InitiatorName=iqn.test:host", "TargetName="+DefaultPrefix+"other")
		other.good(read10(0, 1024), 512<<10, nil)
		other.send(other.command(read10(0, 8192), 4<<20, flagRead), nil) // needs what is not there
		later := other.nothingYet(t)
		go g.release()
		greedy.answer()
		if r := later(); r.opcode() != opDataIn {
			t.Errorf("answer: %x", r.header)
		}
		other.answer()
	})
}
