package iscsi

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
)

// nothingYet checks that no PDU comes as long as everything else waits. What it returns gives the PDU that comes later.
func (c *client) nothingYet(t *testing.T) func() pdu {
	t.Helper()
	got := make(chan pdu, 1)
	go func() {
		if p, err := c.tryReceive(); err == nil {
			got <- p
		}
		close(got)
	}()
	synctest.Wait()
	select {
	case p := <-got:
		t.Fatalf("came too early: %x", p.header)
	default:
	}
	return func() pdu { return <-got }
}

func (p *portal) gate() *gated {
	g := newGated(p.shelf.devs["disk"])
	p.shelf.devs["disk"] = g
	return g
}

func TestAbortedTaskIsNotAnsweredAndTheAbortWaitsForTheDevice(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		g := p.gate()
		c := p.session()
		c.send(c.command(write10(0, 8), 4096, flagWrite), pattern(4096, 1))
		<-g.came
		c.send(c.manage(abortTask, c.tag), nil)
		later := c.nothingYet(t)
		g.release()
		if r := later(); r.opcode() != opTaskResponse || r.header[2] != functionComplete || r.tag() != c.tag {
			t.Errorf("answer: %x", r.header)
		}
		c.good(tur(), 0, nil)
	})
}

func TestAbortOfAFinishedTaskFindsNothing(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		c.good(write10(0, 1), 0, pattern(512, 1))
		c.send(c.manage(abortTask, c.tag), nil)
		if r := c.receive(); r.opcode() != opTaskResponse || r.header[2] != functionNoTask {
			t.Errorf("answer: %x", r.header)
		}
	})
}

func TestAbortedTaskThatWaitsForDataIsForgotten(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		c.send(c.command(write10(0, 256), 128<<10, flagWrite), nil)
		tag, r2t := c.tag, c.receive()
		c.send(c.manage(abortTask, tag), nil)
		if r := c.receive(); r.opcode() != opTaskResponse || r.header[2] != functionComplete {
			t.Errorf("answer: %x", r.header)
		}
		c.send(c.dataOut(tag, r2t.u32(20), 0, 0, true), pattern(128<<10, 1))
		if got := c.good(read10(0, 8), 4096, nil); !bytes.Equal(got, make([]byte, 4096)) {
			t.Error("an aborted command wrote")
		}
		h := c.command(tur(), 0, 0)
		h.put(16, tag)
		c.send(h, nil)
		if r := c.answer(); r.header[3] != 0 {
			t.Errorf("the tag cannot be used again: %x", r.header)
		}
	})
}

func TestResetWaitsForAllSessionsAndTellsThem(t *testing.T) {
	for _, function := range []byte{resetLU, resetTargetWarm, clearTaskSet} {
		within(t, Config{}, func(t *testing.T, p *portal) {
			g := p.gate()
			a, b := p.session(), p.named("second")
			b.send(b.command(write10(0, 8), 4096, flagWrite), pattern(4096, 1))
			<-g.came
			a.send(a.manage(function, reservedTag), nil)
			later := a.nothingYet(t)
			g.release()
			if r := later(); r.opcode() != opTaskResponse || r.header[2] != functionComplete {
				t.Errorf("answer: %x", r.header)
			}
			if function == clearTaskSet {
				a.good(tur(), 0, nil)
				b.expectSense(b.do(tur(), 0, nil), 6, 0x2f00)
				return
			}
			a.expectSense(a.do(tur(), 0, nil), 6, 0x2903)
			b.expectSense(b.do(tur(), 0, nil), 6, 0x2903)
		})
	}
}

func TestColdResetEndsAllSessions(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		a, b := p.session(), p.named("second")
		a.send(a.manage(resetTargetCold, reservedTag), nil)
		if r := a.receive(); r.opcode() != opTaskResponse || r.header[2] != functionComplete {
			t.Errorf("answer: %x", r.header)
		}
		a.closed()
		b.closed()
	})
}

func TestAbortTaskSetTakesOnlyTheOwnTasks(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		g := p.gate()
		a, b := p.session(), p.named("second")
		a.send(a.command(read10(0, 1), 512, flagRead), nil)
		<-g.came
		a.send(a.command(write10(0, 256), 128<<10, flagWrite), nil)
		a.receive() // R2T
		b.send(b.command(read10(0, 1), 512, flagRead), nil)
		<-g.came
		a.send(a.manage(abortTaskSet, reservedTag), nil)
		later := a.nothingYet(t)
		g.release()
		b.answer()
		if r := later(); r.opcode() != opTaskResponse || r.header[2] != functionComplete {
			t.Errorf("answer: %x", r.header)
		}
	})
}

func TestFunctionsThatCannotBeDoneSaySo(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		for function, want := range map[byte]byte{reassignTask: functionNoReassign, clearACA: functionNotSupported, 99: functionNotSupported} {
			c.send(c.manage(function, 1), nil)
			if r := c.receive(); r.opcode() != opTaskResponse || r.header[2] != want {
				t.Errorf("%d: %x", function, r.header)
			}
		}
		h := c.manage(resetLU, reservedTag)
		h[9] = 9
		c.send(h, nil)
		if r := c.receive(); r.header[2] != functionNoLU {
			t.Errorf("reset of LUN 9: %x", r.header)
		}
	})
}

func TestLogoutWaitsForTheDeviceAlsoBehindAnAbort(t *testing.T) {
	for _, aborted := range []bool{false, true} {
		within(t, Config{}, func(t *testing.T, p *portal) {
			g := p.gate()
			c := p.session()
			c.send(c.command(write10(0, 8), 4096, flagWrite), pattern(4096, 1))
			<-g.came
			if aborted {
				c.send(c.manage(abortTask, c.tag), nil)
			}
			c.send(c.logout(), nil)
			later := c.nothingYet(t)
			g.release()
			r := later()
			if aborted {
				if r.opcode() != opTaskResponse {
					t.Errorf("first answer: %x", r.header)
				}
				r = c.receive()
			}
			if r.opcode() != opLogoutReply || r.header[2] != logoutDone {
				t.Errorf("answer: %x", r.header)
			}
			c.closed()
		})
	}
}

func TestLogoutOfAnotherConnectionIsRefused(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		for reason, want := range map[byte]byte{logoutConnection: logoutNoCID, 2: logoutNoRecovery} {
			h := c.logout()
			h[1] |= reason
			h[21] = 9
			c.send(h, nil)
			if r := c.receive(); r.opcode() != opLogoutReply || r.header[2] != want {
				t.Errorf("reason %d: %x", reason, r.header)
			}
		}
		c.good(tur(), 0, nil)
	})
}

func TestShutdownFinishesWhatWasBegun(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		g := p.gate()
		c := p.session()
		c.send(c.command(write10(0, 8), 4096, flagWrite), pattern(4096, 1))
		<-g.came
		ended := make(chan error)
		go func() { ended <- p.Shutdown(context.Background()) }()
		later := c.nothingYet(t)
		g.release()
		if r := later(); r.opcode() != opResponse || r.header[3] != 0 {
			t.Errorf("answer: %x", r.header)
		}
		c.closed()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := p.Serve(newPipes()); err != ErrClosed {
			t.Errorf("Serve after Shutdown: %v", err)
		}
	})
}

func TestShutdownGivesUpWithItsContextAndLeavesTheDeviceTime(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		g := p.gate()
		c := p.session()
		c.send(c.command(write10(0, 8), 4096, flagWrite), pattern(4096, 1))
		<-g.came
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- p.Shutdown(ctx) }()
		synctest.Wait()
		cancel()
		if err := <-ended; err != context.Canceled {
			t.Error(err)
		}
		c.closed()
		p.shelf.mu.Lock()
		open := p.shelf.open["disk"]
		p.shelf.mu.Unlock()
		if open != 1 {
			t.Error("the volume was closed under a request")
		}
		g.release()
	})
}

func TestLogoutWhileTheServerStopsHoldsNothingUp(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		p.Server.mu.Lock()
		for _, x := range p.sessions {
			x.stopping.Store(true) // as stopGently, which the reader has not noticed yet
		}
		p.Server.mu.Unlock()
		c.send(c.logout(), nil)
		if r := c.receive(); r.opcode() != opLogoutReply {
			t.Errorf("answer: %x", r.header)
		}
		c.closed()
	})
}
