package iscsi

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// overwriteCDB is SANITIZE with OVERWRITE; overwriteList has it write 7s, three times.
func overwriteCDB(flags byte) []byte { return []byte{0x48, flags | 1, 0, 0, 0, 0, 0, 0, 5, 0} }

var overwriteList = []byte{3, 0, 0, 1, 7}

// sanitizing checks that the LUN of a client that logs in anew is being sanitized.
func (p *portal) sanitizing() *client {
	p.t.Helper()
	c := p.session()
	c.expectSense(c.do(tur(), 0, nil), 2, 0x041b)
	return c
}

func TestSanitizeGoesOnWhateverEndsItsTask(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		c.send(c.command(overwriteCDB(0), len(overwriteList), flagWrite), overwriteList)
		synctest.Wait()
		other := p.named("second")
		other.expectSense(other.do(tur(), 0, nil), 2, 0x041b)
		other.good([]byte{0x12, 0, 0, 0, 96, 0}, 96, nil)
		for _, function := range []byte{abortTask, abortTaskSet, resetLU, resetTargetWarm, resetTargetCold} {
			referenced := uint32(reservedTag)
			if function == abortTask {
				referenced = c.tag
			}
			c.send(c.manage(function, referenced), nil)
			if r := c.receive(); r.opcode() != opTaskResponse || r.header[2] != functionComplete {
				t.Errorf("function %d: %x", function, r.header)
			}
		}
		c.closed()
		other.closed()
		c = p.sanitizing()
		time.Sleep(2 * time.Second) // 3 passes of 64 MiB take 1.5
		if got := c.good(read10(0, 1), 512, nil); got[0] != 7 || got[511] != 7 {
			t.Errorf("it reads % x", got)
		}
	})
}

func TestAVolumeStaysOpenUntilItIsSanitized(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.session()
		if r := c.do(overwriteCDB(0x80), 0, overwriteList); r.header[3] != 0 {
			t.Fatalf("status %02x", r.header[3])
		}
		c.conn.Close()
		time.Sleep(time.Second)
		if n := p.shelf.opened("disk"); n != 1 {
			t.Errorf("it is open %d times meanwhile", n)
		}
		time.Sleep(time.Second)
		if n := p.shelf.opened("disk"); n != 0 {
			t.Errorf("it is open %d times afterwards", n)
		}
		c = p.session()
		c.good(tur(), 0, nil)
	})
}

func TestTheNextServerGoesOnWithWhatIsSanitized(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kept := newMemoryReservations()
		first := startPortal(t, Config{Reservations: kept})
		c := first.session()
		c.send(c.command(overwriteCDB(0), len(overwriteList), flagWrite), overwriteList)
		time.Sleep(time.Second)
		ended := make(chan error)
		go func() { ended <- first.Shutdown(context.Background()) }()
		if r := c.receive(); r.opcode() != opAsync {
			t.Errorf("a session whose sanitizing goes on elsewhere: %x", r.header)
		}
		c.closed()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		first.end()
		next := startPortal(t, Config{Reservations: kept})
		defer next.end()
		c = next.sanitizing()
		time.Sleep(2 * time.Second)
		c.good(tur(), 0, nil)
	})
}

func TestADrainedTargetSanitizesNoMore(t *testing.T) {
	targets := registry(t)
	within(t, Config{Targets: targets}, func(t *testing.T, p *portal) {
		c := p.client()
		c.login(publicKeys...)
		c.at(0, tur(), 0, nil)
		h := c.command(overwriteCDB(0x80), len(overwriteList), flagWrite)
		h[9] = 0
		c.send(h, overwriteList)
		if r := c.answer(); r.header[3] != 0 {
			t.Fatalf("status %02x", r.header[3])
		}
		c.conn.Close()
		info, err := targets.Lookup(context.Background(), public)
		if err != nil {
			t.Fatal(err)
		}
		list, _ := targets.List(context.Background())
		for _, x := range list {
			targets.Remove(x.Name)
		}
		if err := p.drain(public, 5*time.Second); err != nil {
			t.Error(err)
		}
		if n := p.shelf.opened("disk"); n != 0 {
			t.Errorf("the volume is open %d times", n)
		}
		if err := targets.Put(info); err != nil {
			t.Fatal(err)
		}
		c = p.client()
		c.login(publicKeys...)
		c.at(0, tur(), 0, nil)
		c.expectSense(c.at(0, tur(), 0, nil), 2, 0x041b)
		time.Sleep(2 * time.Second)
		if r := c.at(0, tur(), 0, nil); r.header[3] != 0 {
			t.Errorf("status %02x when it is done", r.header[3])
		}
	})
}
