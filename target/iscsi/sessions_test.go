package iscsi

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/blockstore/block"
	"pstorage/target/scsi"
)

// drain is Drain with a limit of its own.
func (p *portal) drain(name string, limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return p.Drain(ctx, name)
}

func TestDrainedTargetHasGivenItsVolumesBack(t *testing.T) {
	targets := registry(t)
	within(t, Config{Targets: targets}, func(t *testing.T, p *portal) {
		g := p.gate()
		c := p.several()
		h := c.command(write10(0, 8), 4096, flagWrite)
		h[9] = 0
		c.send(h, pattern(4096, 1))
		<-g.came
		targets.Remove(public)
		late := p.client()
		late.send(loginHeader(late, stageOperational, stageFull), text(publicKeys...))
		if r := late.receive(); statusOf(r) != loginNotFound {
			t.Errorf("login to a target that is gone: status %04x", statusOf(r))
		}
		if err := p.drain(public, 5*time.Second); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("drained with a command at the device: %v", err)
		}
		c.closed()
		if n := p.shelf.opened("disk"); n != 1 {
			t.Errorf("the volume is open %d times with a command at it", n)
		}
		g.release()
		if err := p.drain(public, 5*time.Second); err != nil {
			t.Error(err)
		}
		if n := p.shelf.opened("disk") + p.shelf.opened("other"); n != 0 {
			t.Errorf("volumes are open %d times", n)
		}
		if err := p.drain(public, 0); err != nil {
			t.Errorf("a target without sessions: %v", err)
		}
	})
}

func TestDrainTellsInitiatorsThatFollow(t *testing.T) {
	targets := registry(t)
	within(t, Config{Targets: targets}, func(t *testing.T, p *portal) {
		c := p.several()
		targets.Remove(public)
		done := make(chan error, 1)
		go func() { done <- p.drain(public, 5*time.Second) }()
		if r := c.receive(); r.opcode() != opAsync || r.header[36] != asyncDropAll {
			t.Errorf("instead of a message that the session ends: %x", r.header)
		}
		c.closed()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// slowly opens volumes only when it is told to.
type slowly struct {
	block.Catalog
	came, open chan struct{}
	once       sync.Once
}

func (s *slowly) Open(ctx context.Context, name string) (block.Device, block.VolumeInfo, error) {
	s.once.Do(func() { close(s.came) })
	select {
	case <-s.open:
		return s.Catalog.Open(ctx, name)
	case <-ctx.Done():
		return nil, block.VolumeInfo{}, ctx.Err()
	}
}

func TestTargetThatGoesDuringALoginLetsNobodyIn(t *testing.T) {
	targets := registry(t)
	within(t, Config{Targets: targets}, func(t *testing.T, p *portal) {
		s := &slowly{Catalog: p.shelf, came: make(chan struct{}), open: make(chan struct{})}
		p.Server.cfg.Catalog = s
		c := p.client()
		c.send(loginHeader(c, stageOperational, stageFull), text(publicKeys...))
		<-s.came
		targets.Remove(public)
		done := make(chan error, 1)
		began := time.Now()
		go func() { done <- p.drain(public, time.Minute) }()
		if r := c.receive(); statusOf(r) == loginSuccess {
			t.Error("logged in to a target that is gone")
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("the login was refused after %v", took)
		}
		close(s.open)
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// fickle gives one answer, and then others.
type fickle struct {
	*MemoryTargets
	first *TargetInfo
}

func (f *fickle) Lookup(ctx context.Context, name string) (TargetInfo, error) {
	if f.first != nil {
		info := *f.first
		f.first = nil
		return info, nil
	}
	return f.MemoryTargets.Lookup(ctx, name)
}

func TestLoginSeesAChangeThatCameDuringIt(t *testing.T) {
	targets := &fickle{MemoryTargets: registry(t)}
	info, err := targets.Lookup(t.Context(), public)
	if err != nil {
		t.Fatal(err)
	}
	within(t, Config{Targets: targets}, func(t *testing.T, p *portal) {
		old := info
		old.LUNs = old.LUNs[:1]
		targets.first = &old
		c := p.client()
		c.login(publicKeys...)
		c.at(0, tur(), 0, nil)
		if got := reportLUNs(c); len(got) != 2 {
			t.Errorf("LUNs %x", got)
		}
		gone := info
		gone.Name = "iqn.2014-04.com.pstorage:gone"
		targets.first = &gone
		c = p.client()
		c.send(loginHeader(c, stageOperational, stageFull), text(normalKeys[0], "TargetName="+gone.Name))
		if r := c.receive(); statusOf(r) != loginNotFound {
			t.Errorf("login to a target that went during it: status %04x", statusOf(r))
		}
	})
}

func TestSessionsOfATargetAreTold(t *testing.T) {
	var mu sync.Mutex
	changes := 0
	watch := func(target string) {
		mu.Lock()
		defer mu.Unlock()
		if target == guarded {
			changes++
		}
	}
	within(t, Config{Targets: registry(t), Watch: watch}, func(t *testing.T, p *portal) {
		c := p.clientAt("192.0.2.1:3260")
		began := time.Now()
		id, challenge, _ := c.challenged("5", guardedKeys...)
		c.exchange(stageOperational, "CHAP_N=host", "CHAP_R="+proof(5, id, in.Secret, challenge))
		c.login()
		want := SessionInfo{Initiator: "iqn.test:host", ISID: [6]byte{0x80, 0, 0, 0, 0, 1}, Address: "pipe", Portal: "192.0.2.1:3260", Account: "host", Since: began}
		got := p.Sessions(guarded)
		if len(got) == 1 {
			want.ISID = got[0].ISID
		}
		if !slices.Equal(got, []SessionInfo{want}) || want.ISID == [6]byte{} {
			t.Errorf("sessions %+v", got)
		}
		c.conn.Close()
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		if got := p.Sessions(guarded); len(got) != 0 || changes != 2 {
			t.Errorf("sessions %+v after the end, %d changes", got, changes)
		}
	})
}

func TestDiscoveryShowsWhatIsServedAtItsAddress(t *testing.T) {
	targets, err := NewMemoryTargets(
		TargetInfo{Name: guarded, Accounts: []Account{in}, Mutual: &out, Portals: []Portal{{Address: "192.0.2.1"}}},
		TargetInfo{Name: public, Portals: []Portal{{Address: "192.0.2.1"}, {Address: "192.0.2.2:3260"}}})
	if err != nil {
		t.Fatal(err)
	}
	within(t, Config{Targets: targets}, func(t *testing.T, p *portal) {
		for local, want := range map[addr][]string{"192.0.2.1:3260": {public}, "192.0.2.2:3260": {public}, "192.0.2.2:3261": nil} {
			c := p.clientAt(local)
			c.login("InitiatorName=iqn.test:host", "SessionType=Discovery")
			if got := seen(c); !slices.Equal(got, want) {
				t.Errorf("at %s a stranger is shown %q", local, got)
			}
		}
		c := p.clientAt("192.0.2.2:3260") // nothing here asks for CHAP
		r := c.exchange(stageOperational, "InitiatorName=iqn.test:host", "SessionType=Discovery", "AuthMethod=CHAP,None")
		if got := pairs(r)["AuthMethod"]; got != none {
			t.Errorf("AuthMethod %q where no account is of use", got)
		}
		c = p.clientAt("192.0.2.1:3260")
		id, challenge, _ := c.challenged("5", "InitiatorName=iqn.test:host", "SessionType=Discovery")
		mine := pattern(16, 3)
		r = c.exchange(stageOperational, "CHAP_N=host", "CHAP_R="+proof(5, id, in.Secret, challenge), "CHAP_I=9", "CHAP_C=0x"+hex.EncodeToString(mine))
		if got := pairs(r); got["CHAP_N"] != "target" || got["CHAP_R"] != proof(5, 9, out.Secret, mine) {
			t.Errorf("the target does not prove itself for discovery: %x %q", r.header, got)
		}
		c.login()
		if got := seen(c); !slices.Equal(got, []string{guarded, public}) {
			t.Errorf("who has an account is shown %q", got)
		}
	})
}

// forgetful is a store of reservations that cannot be read for a while.
type forgetful struct {
	*memoryReservations
	mu  sync.Mutex
	err error
}

func (f *forgetful) Load(volume [16]byte) (scsi.ReservationState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return scsi.ReservationState{}, f.err
	}
	return f.memoryReservations.Load(volume)
}

func (f *forgetful) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func TestLUNWhoseReservationsAreNotKnownIsBusyUntilTheyAre(t *testing.T) {
	store := &forgetful{memoryReservations: newMemoryReservations()}
	within(t, Config{Targets: registry(t), Reservations: store}, func(t *testing.T, p *portal) {
		open := p.client() // has LUN 0 open
		open.login("InitiatorName=iqn.test:chosen", "TargetName=iqn.2014-04.com.pstorage:chosen")
		defer open.conn.Close()
		store.fail(errors.New("no leader"))
		c := p.client()
		c.login(publicKeys...)
		c.at(0, tur(), 0, nil)
		if r := c.at(300, tur(), 0, nil); r.header[3] != scsi.Busy {
			t.Errorf("LUN 300: status %02x while nobody knows what is reserved", r.header[3])
		}
		if n := p.shelf.opened("other"); n != 0 {
			t.Errorf("its volume is open %d times", n)
		}
		store.fail(nil)
		time.Sleep(reopenMost)
		c.expectSense(c.at(300, tur(), 0, nil), 6, 0x2900)
		if r := c.at(300, tur(), 0, nil); r.header[3] != 0 {
			t.Errorf("LUN 300 when it is known: status %02x", r.header[3])
		}
	})
}
