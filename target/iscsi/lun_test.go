package iscsi

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/blockstore/block"
	"pstorage/target/scsi"
)

var publicKeys = append([]string{normalKeys[0], "TargetName=" + public}, normalKeys[2:]...)

// at sends a command to a LUN of the public target.
func (c *client) at(lun int, cdb []byte, room int, out []byte) pdu {
	c.t.Helper()
	flags := byte(0)
	if out != nil {
		flags, room = flagWrite, len(out)
	} else if room > 0 {
		flags = flagRead
	}
	h := c.command(cdb, room, flags)
	binary.BigEndian.PutUint64(h[8:], lunID(lun))
	c.send(h, out)
	return c.answer()
}

// several logs in to the public target and takes the unit attentions of its LUNs.
func (p *portal) several() *client {
	c := p.client()
	c.login(publicKeys...)
	for _, lun := range []int{0, 300} {
		c.expectSense(c.at(lun, tur(), 0, nil), 6, 0x2900)
	}
	return c
}

func reportLUNs(c *client) (luns []uint64) {
	cdb := make([]byte, 12)
	cdb[0], cdb[8] = 0xa0, 1
	r := c.at(0, cdb, 256, nil)
	for b := r.data[8:]; len(b) >= 8; b = b[8:] {
		luns = append(luns, binary.BigEndian.Uint64(b))
	}
	return luns
}

func TestLUNsOfATargetAreVolumesOfTheirOwn(t *testing.T) {
	within(t, Config{Targets: registry(t)}, func(t *testing.T, p *portal) {
		c := p.several()
		if got := reportLUNs(c); !slices.Equal(got, []uint64{0, 0x412c << 48}) {
			t.Errorf("LUNs %x", got)
		}
		data := pattern(4096, 7)
		if r := c.at(0, write10(8, 8), 0, data); r.header[3] != 0 {
			t.Fatalf("write: status %02x", r.header[3])
		}
		if r := c.at(300, read10(1, 1), 4096, nil); r.header[3] != 0 || bytes.Equal(r.data, data) {
			t.Errorf("LUN 300 has the data of LUN 0, or cannot be read: status %02x", r.header[3])
		}
		c.expectSense(c.at(300, write10(1, 1), 0, data), 7, 0x2700)
		c.expectSense(c.at(5, tur(), 0, nil), 5, 0x2500)
	})
}

func TestLUNThatHangsTakesNothingFromTheOthers(t *testing.T) {
	within(t, Config{Targets: registry(t)}, func(t *testing.T, p *portal) {
		g := p.gate()
		c := p.several()
		full := 0
		for range defaultQueue/2 + 3 {
			h := c.command(read10(0, 8), 4096, flagRead)
			h[9] = 0
			c.send(h, nil)
		}
		for range 3 {
			if r := c.answer(); r.header[3] == scsi.TaskSetFull {
				full++
			}
		}
		if full != 3 {
			t.Errorf("%d of 3 commands beyond half of the queue were told that it is full", full)
		}
		if r := c.at(300, read10(0, 1), 4096, nil); r.header[3] != 0 {
			t.Errorf("the other LUN: status %02x", r.header[3])
		}
		g.release()
		for range defaultQueue / 2 {
			if r := c.answer(); r.header[3] != 0 {
				t.Fatalf("status %02x when it goes on", r.header[3])
			}
		}
	})
}

func TestLUNWhoseVolumeIsNotThereIsBusyUntilItIs(t *testing.T) {
	within(t, Config{Targets: registry(t)}, func(t *testing.T, p *portal) {
		p.shelf.mu.Lock()
		other := p.shelf.devs["other"]
		delete(p.shelf.devs, "other")
		p.shelf.mu.Unlock()
		c := p.client()
		c.login(publicKeys...)
		c.expectSense(c.at(0, tur(), 0, nil), 6, 0x2900)
		if r := c.at(0, tur(), 0, nil); r.header[3] != 0 {
			t.Errorf("LUN 0: status %02x", r.header[3])
		}
		if r := c.at(300, tur(), 0, nil); r.header[3] != scsi.Busy {
			t.Errorf("LUN 300: status %02x", r.header[3])
		}
		if got := reportLUNs(c); len(got) != 2 {
			t.Errorf("LUNs %x", got)
		}
		p.shelf.mu.Lock()
		p.shelf.devs["other"] = other
		p.shelf.mu.Unlock()
		time.Sleep(reopenMost)
		c.expectSense(c.at(300, tur(), 0, nil), 6, 0x2900)
		if r := c.at(300, tur(), 0, nil); r.header[3] != 0 {
			t.Errorf("LUN 300 when it is there: status %02x", r.header[3])
		}
	})
}

func TestResetOfALUNLeavesTheOthersAlone(t *testing.T) {
	within(t, Config{Targets: registry(t)}, func(t *testing.T, p *portal) {
		c := p.several()
		h := c.manage(resetLU, reservedTag)
		binary.BigEndian.PutUint64(h[8:], lunID(300))
		c.send(h, nil)
		if r := c.receive(); r.opcode() != opTaskResponse || r.header[2] != functionComplete {
			t.Fatalf("reset: %x", r.header)
		}
		if r := c.at(0, tur(), 0, nil); r.header[3] != 0 {
			t.Errorf("LUN 0: status %02x", r.header[3])
		}
		c.expectSense(c.at(300, tur(), 0, nil), 6, 0x2903)
	})
}

func TestChangesOfATargetReachItsSessions(t *testing.T) {
	targets := registry(t)
	within(t, Config{Targets: targets}, func(t *testing.T, p *portal) {
		g := p.gate()
		c := p.several()
		h := c.command(write10(0, 8), 4096, flagWrite)
		h[9] = 0
		c.send(h, pattern(4096, 1))
		<-g.came
		change := func(luns ...LUN) {
			if err := targets.Put(TargetInfo{Name: public, LUNs: luns}); err != nil {
				t.Fatal(err)
			}
			if err := p.Changed(t.Context(), public); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		change(LUN{Number: 300, Volume: "other", BlockSize: 4096, ReadOnly: true})
		c.expectSense(c.at(300, tur(), 0, nil), 6, 0x3f0e)
		c.expectSense(c.at(0, tur(), 0, nil), 5, 0x2500)
		if n := p.shelf.opened("disk"); n != 1 {
			t.Errorf("the volume is open %d times while a command is at it", n)
		}
		g.release()
		synctest.Wait()
		if n := p.shelf.opened("disk"); n != 0 {
			t.Errorf("the volume is open %d times after its LUN is gone", n)
		}
		change(LUN{Number: 300, Volume: "other", BlockSize: 4096, ReadOnly: true}, LUN{Number: 2, Volume: "disk"})
		c.expectSense(c.at(300, tur(), 0, nil), 6, 0x3f0e)
		c.expectSense(c.at(2, tur(), 0, nil), 6, 0x2900)
		targets.Remove(public)
		if err := p.Changed(t.Context(), public); err != nil {
			t.Fatal(err)
		}
		if r := c.receive(); r.opcode() != opAsync {
			t.Errorf("instead of a message that it ends: %x", r.header)
		}
		c.closed()
	})
}

func (s *shelf) opened(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[name]
}

func TestPortalsAreTheTargetsOwn(t *testing.T) {
	info := TargetInfo{Name: public, Portals: []Portal{{Address: "192.0.2.1:3260"}, {Address: "192.0.2.2", Group: 7}},
		Groups: []scsi.PortGroup{{Tag: 7, State: scsi.ActiveNonOptimized}}}
	for at, want := range map[string]uint16{"192.0.2.1:3260": 1, "192.0.2.2:860": 7, "192.0.2.1:3261": 0, "192.0.2.3:3260": 0} {
		if tag, ok := info.portal(addr(at)); tag != want || ok != (want != 0) {
			t.Errorf("%s: group %d", at, tag)
		}
	}
	if g := info.PortGroups(); len(g) != 2 || g[0].Tag != 1 || g[0].State != scsi.ActiveOptimized || g[1].State != scsi.ActiveNonOptimized {
		t.Errorf("groups %+v", g)
	}
	within(t, Config{}, func(t *testing.T, p *portal) {
		m, err := NewMemoryTargets(TargetInfo{Name: public, LUNs: []LUN{{Number: 1, Volume: "disk"}}, Portals: info.Portals})
		if err != nil {
			t.Fatal(err)
		}
		p.Server.cfg.Targets = m
		c := p.client()
		c.send(loginHeader(c, stageOperational, stageFull), text(publicKeys...))
		if r := c.receive(); statusOf(r) != loginNotFound {
			t.Errorf("login at an address that is not the target's: status %04x", statusOf(r))
		}
	})
}

type addr string

func (addr) Network() string  { return "tcp" }
func (a addr) String() string { return string(a) }

func TestConnectionReinstatementTakesOverWithNothingLeft(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		g := p.gate()
		first := p.client()
		handle := first.login(normalKeys...).header[14:16]
		first.do(tur(), 0, nil)
		first.send(first.command(write10(0, 8), 4096, flagWrite), pattern(4096, 1))
		<-g.came
		c := p.client()
		h := loginHeader(c, stageOperational, stageFull)
		copy(h[14:], handle)
		c.send(h, text(normalKeys...))
		later := c.nothingYet(t)
		g.release()
		r := later()
		if statusOf(r) != loginSuccess || !bytes.Equal(r.header[14:16], handle) {
			t.Errorf("status %04x, handle %x; want %x", statusOf(r), r.header[14:16], handle)
		}
		first.closed()
		c.do(tur(), 0, nil)
		c.good(tur(), 0, nil)
	})
}

// lapsed is a device whose lease is lost.
type lapsed struct{ block.Device }

func (lapsed) Submit(batch []*block.Request) {
	for _, r := range batch {
		r.Err = fmt.Errorf("volume: %w", block.ErrLostLease)
	}
	block.CompleteAll(batch)
}

func TestVolumeWhoseLeaseIsLostIsOpenedAgain(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		alive := p.shelf.devs["disk"]
		p.shelf.devs["disk"] = lapsed{alive}
		c, other := p.named("a"), p.named("b")
		p.shelf.mu.Lock()
		p.shelf.devs["disk"] = alive
		p.shelf.mu.Unlock()
		for _, x := range []*client{c, other} {
			x.expectSense(x.do(read10(0, 8), 4096, nil), 2, 0x0401)
			synctest.Wait()
			x.expectSense(x.do(tur(), 0, nil), 6, 0x2900)
			x.good(read10(0, 8), 4096, nil)
		}
		if n := p.shelf.opened("disk"); n != 1 {
			t.Errorf("the volume is open %d times", n)
		}
	})
}

func TestVolumesOwnTargetsAreOfTheKindAskedFor(t *testing.T) {
	within(t, Config{LikeLUN: LUN{Number: 9, Volume: "other", BlockSize: 4096, ReadOnly: true, Removable: true}}, func(t *testing.T, p *portal) {
		c := p.session()
		if data := c.good([]byte{0x12, 0, 0, 0, 96, 0}, 96, nil); data[1]&0x80 == 0 {
			t.Error("the medium cannot be ejected")
		}
		if data := c.good([]byte{0x25, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 8, nil); binary.BigEndian.Uint32(data[4:]) != 4096 {
			t.Errorf("capacity % x", data)
		}
		c.expectSense(c.do(write10(1, 1), 0, make([]byte, 4096)), 7, 0x2700)
	})
}

func TestVolumeIsOneKindOfDiskAtATime(t *testing.T) {
	for name, l := range map[string]LUN{
		"blocks":    {Number: 1, Volume: "disk", BlockSize: 4096},
		"physical":  {Number: 1, Volume: "disk", PhysicalBlock: 4096},
		"removable": {Number: 1, Volume: "disk", Removable: true},
	} {
		targets, err := NewMemoryTargets(TargetInfo{Name: public, LUNs: []LUN{{Number: 0, Volume: "disk"}, l, {Number: 2, Volume: "disk", BlockSize: 512, ReadOnly: true}}})
		if err != nil {
			t.Fatal(err)
		}
		within(t, Config{Targets: targets}, func(t *testing.T, p *portal) {
			c := p.client()
			c.login(publicKeys...)
			var busy [3]bool
			for lun := range busy {
				busy[lun] = c.at(lun, tur(), 0, nil).header[3] == scsi.Busy
			}
			if busy[0] == busy[1] || busy[0] != busy[2] { // whichever was opened first
				t.Errorf("%s: LUNs that are busy: %v", name, busy)
			}
		})
	}
}
