package iscsi

import (
	"context"
	"fmt"
	"sync"

	"pstorage/blockstore/block"
	"pstorage/target/scsi"
)

// theLUN is the LUN of the volume in its target, and its eight-byte form.
const (
	theLUN   = 1
	lunBytes = uint64(theLUN) << 48
)

// target is an exported volume that at least one session uses.
type target struct {
	name string // of the volume
	iqn  string
	info block.VolumeInfo
	dev  block.Device
	lu   *scsi.LU

	opened chan struct{} // closed when dev and lu are there, or err
	err    error
	refs   int // guarded by Server.mu

	mu       sync.Mutex
	sessions map[*session]struct{}
}

// openTarget returns the target of a volume, opening it for its first user. Each call that succeeds is paired with one of
// releaseTarget.
func (s *Server) openTarget(ctx context.Context, name string) (*target, error) {
	s.mu.Lock()
	t := s.targets[name]
	if t == nil {
		t = &target{name: name, iqn: s.cfg.TargetPrefix + name, opened: make(chan struct{}), sessions: map[*session]struct{}{}}
		s.targets[name] = t
		go s.open(t)
	}
	t.refs++
	s.mu.Unlock()
	select {
	case <-t.opened:
	case <-ctx.Done():
		s.releaseTarget(t)
		return nil, fmt.Errorf("opening volume %s: %w", name, ctx.Err())
	}
	if t.err != nil {
		s.releaseTarget(t)
		return nil, t.err
	}
	return t, nil
}

// open opens the volume. It is not bound to the first login: others may wait for it as well.
func (s *Server) open(t *target) {
	ctx, cancel := context.WithTimeout(s.ctx, loginTime)
	defer cancel()
	dev, info, err := s.cfg.Catalog.Open(ctx, t.name)
	if err == nil {
		t.dev, t.info = dev, info
		t.lu = scsi.NewLU(dev, info, scsi.Options{Removable: s.cfg.Removable, Reservations: s.cfg.Reservations})
	}
	t.err = err
	close(t.opened)
}

// releaseTarget gives a use back; the last one closes the volume.
func (s *Server) releaseTarget(t *target) {
	s.mu.Lock()
	t.refs--
	last := t.refs == 0
	if last && s.targets[t.name] == t {
		delete(s.targets, t.name)
	}
	s.mu.Unlock()
	if !last {
		return
	}
	<-t.opened
	if t.err != nil {
		return
	}
	t.lu.Close()
	if err := t.dev.Close(); err != nil {
		s.log.Warn("closing volume failed", "volume", t.name, "err", err)
	}
}

// join adds a session and returns those that it replaces: of the same initiator port.
func (t *target) join(x *session) (old []*session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for o := range t.sessions {
		if o.port == x.port {
			old = append(old, o)
		}
	}
	t.sessions[x] = struct{}{}
	return old
}

func (t *target) leave(x *session) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.sessions, x)
}

func (t *target) each(f func(*session)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for x := range t.sessions {
		f(x)
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
	if len(s.Registrations) == 0 && s.Generation == 0 {
		delete(r.m, volume)
	} else {
		r.m[volume] = s
	}
	return nil
}

func (r *memoryReservations) Durable() bool { return false }
