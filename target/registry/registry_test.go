package registry

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"pstorage/blockstore/block"
	"pstorage/meta/targetpb"
	"pstorage/target/iscsi"
	"pstorage/target/scsi"
)

const (
	one = "iqn.2014-04.com.pstorage:one"
	two = "iqn.2014-04.com.pstorage:two"
)

// newTarget is one that is to run, with a LUN.
func newTarget(name string, addresses ...string) *targetpb.Target {
	t := &targetpb.Target{Name: name, Revision: 1, Enabled: true, Host: "h1",
		Luns: []*targetpb.Lun{{Number: 1, Path: "/iscsi/" + name + "/1", BlockSize: 512}}}
	for _, a := range addresses {
		t.Portals = append(t.Portals, &targetpb.Portal{Address: a})
	}
	return t
}

func stopped(t *targetpb.Target) *targetpb.Target {
	t = proto.CloneOf(t)
	t.Enabled = false
	t.Revision++
	return t
}

func TestTargetsAreServedOnTheirPortals(t *testing.T) {
	first, second := newTarget(one, "192.0.2.1", "192.0.2.2"), newTarget(two, "192.0.2.1:3260", "[2001:db8::1]:860")
	within(t, newBook(first, second, stopped(newTarget("iqn.x:off", "192.0.2.9"))), func(t *testing.T, s *scene) {
		synctest.Wait()
		if got := s.shown(); !slices.Equal(got, []string{one, two}) {
			t.Errorf("shown %q", got)
		}
		if got := s.desk.addresses(); !slices.Equal(got, []string{"192.0.2.1:3260", "192.0.2.2:3260", "[2001:db8::1]:860"}) {
			t.Errorf("listening on %q", got)
		}
		settle(time.Second)
		if x := s.served(one); x == nil || !x.Running || x.Failure != "" || x.Revision != 1 {
			t.Errorf("report %v", s.book.last())
		}
		info, err := s.Lookup(t.Context(), strings.ToUpper(one))
		if want := (iscsi.LUN{Number: 1, Volume: "iscsi/" + one + "/1", BlockSize: 512}); err != nil || !slices.Equal(info.LUNs, []iscsi.LUN{want}) {
			t.Errorf("%+v %v", info, err)
		}
		s.book.set(stopped(first), second)
		settle(time.Second)
		if _, err := s.Lookup(t.Context(), one); !errors.Is(err, block.ErrNotFound) {
			t.Errorf("a stopped target: %v", err)
		}
		if got := s.desk.addresses(); !slices.Equal(got, []string{"192.0.2.1:3260", "[2001:db8::1]:860"}) {
			t.Errorf("listening on %q", got)
		}
		if !slices.Equal(s.desk.drained, []string{one}) || !slices.Equal(s.desk.released, []string{"iscsi/" + one + "/1"}) {
			t.Errorf("drained %q, released %q", s.desk.drained, s.desk.released)
		}
		if s.served(one) != nil || s.served(two) == nil {
			t.Errorf("report %v", s.book.last())
		}
		s.book.set() // registered elsewhere
		settle(time.Second)
		if got := s.shown(); len(got) > 0 || len(s.desk.drained) != 2 {
			t.Errorf("shown %q, drained %q", got, s.desk.drained)
		}
	})
}

func TestATargetIsNotGoneBeforeItsSessionsAre(t *testing.T) {
	first := newTarget(one, "192.0.2.1")
	within(t, newBook(first), func(t *testing.T, s *scene) {
		held := make(chan struct{})
		s.desk.do(func() { s.desk.held[one] = held })
		settle(time.Second)
		s.book.set(stopped(first))
		settle(3 * drainTime)
		if x := s.served(one); x == nil || !x.Running || len(s.desk.released) > 0 || len(s.shown()) > 0 {
			t.Errorf("ends: report %v, released %q, shown %q", x, s.desk.released, s.shown())
		}
		s.book.set(first)
		settle(time.Second)
		if len(s.shown()) > 0 || len(s.desk.addresses()) > 0 {
			t.Errorf("begun again while it ends: shown %q", s.shown())
		}
		close(held)
		s.desk.do(func() { delete(s.desk.held, one) })
		settle(time.Second)
		if len(s.desk.released) != 1 || len(s.shown()) != 1 || !s.served(one).GetRunning() {
			t.Errorf("after the end: report %v, released %q, shown %q", s.served(one), s.desk.released, s.shown())
		}
	})
}

func TestServingGoesOnWhileTheMetadataServersAreSilent(t *testing.T) {
	within(t, newBook(newTarget(one, "192.0.2.1")), func(t *testing.T, s *scene) {
		settle(time.Second)
		s.book.fail(errors.New("no leader"))
		settle(time.Minute)
		before := s.book.calls()
		settle(time.Minute)
		if n := s.book.calls() - before; n < 5 || n > 15 {
			t.Errorf("asked %d times in a minute", n)
		}
		if len(s.shown()) != 1 || len(s.desk.addresses()) != 1 || len(s.desk.drained) > 0 {
			t.Errorf("shown %q, drained %q", s.shown(), s.desk.drained)
		}
		s.book.fail(nil)
		s.book.set(newTarget(one, "192.0.2.1"), newTarget(two, "192.0.2.1"))
		settle(2 * lastPause)
		if len(s.shown()) != 2 {
			t.Errorf("shown %q when they answer again", s.shown())
		}
	})
}

func TestAPortalThatCannotBeIsReportedAndTriedAgain(t *testing.T) {
	within(t, newBook(newTarget(one, "192.0.2.1", "192.0.2.2")), func(t *testing.T, s *scene) {
		s.desk.do(func() { s.desk.foreign["192.0.2.1:3260"], s.desk.foreign["192.0.2.2:3260"] = true, true })
		settle(time.Second)
		if x := s.served(one); x.GetRunning() || !strings.HasPrefix(x.GetFailure(), "address 192.0.2.1 is not on this host") {
			t.Errorf("no portal: %v", x)
		}
		s.desk.do(func() { delete(s.desk.foreign, "192.0.2.1:3260") })
		settle(pollTime + time.Second)
		if x := s.served(one); !x.GetRunning() || strings.Contains(x.GetFailure(), "192.0.2.1 ") || !strings.Contains(x.GetFailure(), "192.0.2.2 ") {
			t.Errorf("one of two portals: %v", x)
		}
		s.desk.do(func() { clear(s.desk.foreign) })
		settle(pollTime + time.Second)
		if x := s.served(one); !x.GetRunning() || x.GetFailure() != "" {
			t.Errorf("both portals: %v", x)
		}
	})
}

func TestAListenerThatEndsIsOpenedAgain(t *testing.T) {
	within(t, newBook(newTarget(one, "192.0.2.1")), func(t *testing.T, s *scene) {
		settle(time.Second)
		s.desk.mu.Lock()
		e := s.desk.listening["192.0.2.1:3260"]
		delete(s.desk.listening, "192.0.2.1:3260")
		s.desk.mu.Unlock()
		e.quit <- struct{}{}
		settle(time.Second)
		if got := s.desk.addresses(); len(got) != 1 {
			t.Errorf("listening on %q", got)
		}
	})
}

func TestATargetWhoseAccountIsNotKnownIsNotServed(t *testing.T) {
	known, unknown := newTarget(one, "192.0.2.1"), newTarget(two, "192.0.2.1")
	known.Account, known.Mutual, unknown.Account = "host", "us", "guest"
	b := newBook(known, unknown)
	within(t, b, func(t *testing.T, s *scene) {
		settle(time.Second)
		if got := s.shown(); !slices.Equal(got, []string{one}) {
			t.Errorf("shown %q", got)
		}
		if x := s.served(two); x.GetRunning() || x.GetFailure() != "there is no account guest" {
			t.Errorf("report %v", x)
		}
		info, _ := s.Lookup(t.Context(), one)
		if len(info.Accounts) != 1 || info.Accounts[0].User != "host" || info.Mutual == nil || info.Mutual.User != "us" {
			t.Errorf("%+v", info)
		}
		orphan := proto.CloneOf(known)
		orphan.Account = "guest" // of a target that is served
		b.set(orphan)
		settle(time.Second)
		if len(s.shown()) > 0 || !slices.Equal(s.desk.drained, []string{one}) || s.served(one).GetFailure() == "" {
			t.Errorf("shown %q, drained %q, report %v", s.shown(), s.desk.drained, s.served(one))
		}
	})
}

func TestWhatCannotBeServedIsRefusedWithAReason(t *testing.T) {
	for why, change := range map[string]func(*targetpb.Target){
		"no address":        func(t *targetpb.Target) { t.Portals = nil },
		"not an IP address": func(t *targetpb.Target) { t.Portals[0].Address = "somewhere" },
		"neither 512":       func(t *targetpb.Target) { t.Luns[0].BlockSize = 1000 },
		"twice":             func(t *targetpb.Target) { t.Luns = append(t.Luns, t.Luns[0]) },
	} {
		target := newTarget(one, "192.0.2.1")
		change(target)
		if _, err := describe(target, nil); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v", why, err)
		}
	}
}

func TestSessionsAreReportedSoonButNotEachOfThem(t *testing.T) {
	within(t, newBook(newTarget(one, "192.0.2.1")), func(t *testing.T, s *scene) {
		settle(time.Second)
		since := time.Now()
		s.desk.do(func() {
			s.desk.sessions[one] = []iscsi.SessionInfo{{Initiator: "iqn.x:host", ISID: [6]byte{1}, Address: "192.0.2.7:1234", Portal: "192.0.2.1:3260", Account: "host", Since: since}}
		})
		s.Watch(one)
		settle(reportEvery + time.Millisecond)
		want := &targetpb.Session{Initiator: "iqn.x:host", Isid: []byte{1, 0, 0, 0, 0, 0}, Address: "192.0.2.7:1234", Portal: "192.0.2.1:3260", Account: "host", SinceUnix: since.Unix()}
		if x := s.served(one); len(x.GetSessions()) != 1 || !proto.Equal(x.Sessions[0], want) {
			t.Errorf("report %v", x)
		}
		before := s.book.calls()
		for range 1000 {
			s.Watch(one)
			time.Sleep(time.Millisecond)
		}
		if n := s.book.calls() - before; n < 4 || n > 6 {
			t.Errorf("%d reports in a second", n)
		}
	})
}

func TestStatesThatAnInitiatorSetsStay(t *testing.T) {
	target := newTarget(one, "192.0.2.1", "192.0.2.2")
	target.Portals[1].Group = 2
	within(t, newBook(target), func(t *testing.T, s *scene) {
		settle(time.Second)
		adopted := s.adopted
		if err := s.SetStates(t.Context(), one, map[uint16]scsi.AccessState{2: scsi.Standby}); err != nil {
			t.Fatal(err)
		}
		state := func() scsi.AccessState {
			info, err := s.Lookup(t.Context(), one)
			if err != nil {
				t.Fatal(err)
			}
			return info.PortGroups()[1].State
		}
		if got := state(); got != scsi.Standby {
			t.Errorf("state %v after it was set", got)
		}
		s.take(&targetpb.SyncReply{Revision: 99, Changed: true, Targets: []*targetpb.Target{target}}, adopted) // an answer from before
		s.reconcile()
		if got := state(); got != scsi.Standby {
			t.Errorf("state %v after an older answer", got)
		}
		target.Groups = []*targetpb.Group{{Id: 2, State: uint32(scsi.ActiveNonOptimized)}}
		s.book.set(target)
		settle(time.Second)
		if got := state(); got != scsi.ActiveNonOptimized {
			t.Errorf("state %v after a newer answer", got)
		}
		if err := s.SetStates(t.Context(), two, nil); !errors.Is(err, block.ErrNotFound) {
			t.Errorf("of a target that is not served: %v", err)
		}
	})
}

func TestChangesOfAServedTargetAreTakenOver(t *testing.T) {
	target := newTarget(one, "192.0.2.1")
	within(t, newBook(target), func(t *testing.T, s *scene) {
		settle(time.Second)
		s.desk.do(func() { s.desk.changed = nil })
		more := proto.CloneOf(target)
		more.Revision, more.Luns = 2, append(more.Luns, &targetpb.Lun{Number: 2, Path: "/iscsi/x"})
		s.book.set(more)
		settle(time.Second)
		info, err := s.Lookup(t.Context(), one)
		if err != nil || len(info.LUNs) != 2 || !slices.Equal(s.desk.changed, []string{one}) || s.served(one).GetRevision() != 2 {
			t.Errorf("%+v %v, changed %q, report %v", info, err, s.desk.changed, s.served(one))
		}
	})
}
