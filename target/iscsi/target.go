package iscsi

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"pstorage/target/scsi"
)

// target is one that at least one session is logged in to.
type target struct {
	srv  *Server
	name string
	info atomic.Pointer[TargetInfo]
	refs int           // guarded by Server.mu
	gone chan struct{} // closed when nobody uses it any more

	updating sync.Mutex // taken to look the target up and take over what it is now; before all other locks

	mu       sync.Mutex
	sessions map[*session]struct{}
}

// useTarget returns the target of a description; releaseTarget gives it back.
func (s *Server) useTarget(info *TargetInfo) *target {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.targets[info.Name]
	if t == nil {
		t = &target{srv: s, name: info.Name, gone: make(chan struct{}), sessions: map[*session]struct{}{}}
		t.info.Store(info)
		s.targets[info.Name] = t
	}
	t.refs++
	return t
}

func (s *Server) releaseTarget(t *target) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.refs--; t.refs == 0 {
		delete(s.targets, t.name)
		close(t.gone)
	}
}

// targetInUse returns a target that sessions are logged in to, or nil.
func (s *Server) targetInUse(name string) *target {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.targets[name]
}

// join adds a session and returns those that it replaces: of the same initiator port at the same target port.
func (t *target) join(x *session) (old []*session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for o := range t.sessions {
		if o.port == x.port && o.tag == x.tag {
			old = append(old, o)
		}
	}
	t.sessions[x] = struct{}{}
	t.srv.cfg.Watch(t.name)
	return old
}

func (t *target) leave(x *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.sessions, x)
	t.srv.cfg.Watch(t.name)
}

func (t *target) each(f func(*session)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for x := range t.sessions {
		f(x)
	}
}

func (t *target) lunIDs() []uint64 { return t.info.Load().lunIDs() }

// units returns the logical units that the target's sessions use.
func (t *target) units() map[*unit]bool {
	all := map[*unit]bool{}
	t.each(func(x *session) {
		x.mu.Lock()
		defer x.mu.Unlock()
		for _, p := range x.paths {
			if e := p.at.Load(); e != nil {
				all[e.unit] = true
			}
		}
	})
	return all
}

// Groups implements scsi.PortGroups.
func (t *target) Groups() []scsi.PortGroup { return t.info.Load().PortGroups() }

// SetStates implements scsi.PortGroups.
func (t *target) SetStates(ctx context.Context, states map[uint16]scsi.AccessState) error {
	if err := t.srv.cfg.Targets.SetStates(ctx, t.name, states); err != nil {
		return err
	}
	return t.srv.Changed(ctx, t.name)
}

// Changed takes over what has changed of a target: sessions get the new LUNs and lose those that are gone, initiators are
// told of LUNs and of states of port groups. A target that is gone ends its sessions once they have finished what
// they began. Who is logged in stays so, whatever the lists of accounts and initiators say.
func (s *Server) Changed(ctx context.Context, name string) error {
	info, err := s.cfg.Targets.Lookup(ctx, name)
	switch {
	case err == nil:
		name = info.Name
	case !missing(err):
		return err
	}
	if t := s.targetInUse(name); t != nil {
		err = t.refresh(ctx)
	}
	if err != nil && !missing(err) {
		return err
	}
	return s.haltUnserved(ctx)
}

// refresh takes over what the target is now, which is what Targets says while the lock is held: an older answer never takes the place
// of a newer one.
func (t *target) refresh(ctx context.Context) error {
	t.updating.Lock()
	defer t.updating.Unlock()
	info, err := t.srv.cfg.Targets.Lookup(ctx, t.name)
	switch {
	case missing(err):
		t.each((*session).stopGently)
	case err == nil:
		t.change(&info)
	}
	return err
}

func (t *target) change(info *TargetInfo) {
	old := t.info.Swap(info)
	if !slices.Equal(old.PortGroups(), info.PortGroups()) {
		for u := range t.units() {
			u.lu.AccessChanged(t.name, info.PortGroups())
		}
	}
	if !slices.Equal(old.LUNs, info.LUNs) {
		t.each(func(x *session) {
			x.relist.Store(true)
			x.wake()
		})
	}
}

// follow gives the session the LUNs that its target has now, and new ways to those whose device is lost. It is the reader's.
func (s *session) follow() {
	info := s.target.info.Load()
	for _, p := range s.paths {
		if p.lost.Load() {
			p.retire()
		}
	}
	s.mu.Lock()
	next := make(map[int]*path, len(info.LUNs))
	changed := len(info.LUNs) != len(s.paths)
	for _, l := range info.LUNs {
		p := s.paths[l.Number]
		same := p != nil && p.lun == l
		if changed = changed || !same; !same || p.lost.Load() {
			p = s.newPath(l, nil)
		}
		next[l.Number] = p
	}
	var gone []*path
	for n, p := range s.paths {
		if next[n] != p {
			gone = append(gone, p)
		}
	}
	s.paths = next
	s.closing = append(s.closing, gone...)
	s.mu.Unlock()
	for _, p := range next {
		if e := p.at.Load(); e != nil && changed {
			e.nexus.Inventory()
		}
	}
	for _, p := range gone {
		s.abortPath(p, func() { s.srv.wg.Go(func() { s.closePath(p) }) })
	}
}

// closePath closes a path that is no longer in the list.
func (s *session) closePath(p *path) {
	s.mu.Lock()
	i := slices.Index(s.closing, p)
	if i >= 0 {
		s.closing = slices.Delete(s.closing, i, i+1)
	}
	s.mu.Unlock()
	if i >= 0 { // else the session's end closes it
		p.close()
		p.release()
	}
}

// memoryReservations keeps persistent reservations as long as the server lives.
type memoryReservations struct {
	mu sync.Mutex
	m  map[[16]byte]scsi.ReservationState
}

func newMemoryReservations() *memoryReservations {
	return &memoryReservations{m: map[[16]byte]scsi.ReservationState{}}
}

func (r *memoryReservations) Load(volume [16]byte) (scsi.ReservationState, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.m[volume], nil
}

func (r *memoryReservations) Save(volume [16]byte, s scsi.ReservationState) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(s.Registrations) == 0 && s.Generation == 0 && s.Sanitize.Action == 0 {
		delete(r.m, volume)
	} else {
		r.m[volume] = s
	}
	return nil
}

func (r *memoryReservations) Durable() bool { return false }
