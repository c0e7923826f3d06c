package iscsi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"pstorage/blockstore/block"
	"pstorage/target/scsi"
)

// unit is a volume that is open as a logical unit, shared by all targets and sessions that use it.
type unit struct {
	volume string
	form   form
	dev    block.Device
	lu     *scsi.LU

	opened chan struct{} // closed when dev and lu are there, or err
	err    error
	refs   int  // guarded by Server.mu
	halted bool // it is to be closed, whatever its LU would go on with; guarded by Server.mu

	mu    sync.Mutex
	paths map[*path]struct{}
}

// form is what all LUNs of a volume have in common.
type form struct {
	block, physical int
	removable       bool
}

func (l *LUN) form() form {
	size := cmp.Or(l.BlockSize, block.SectorSize)
	return form{block: size, physical: max(l.PhysicalBlock, size), removable: l.Removable}
}

// openUnit returns the unit of a volume, opening it for its first user. Each call that succeeds is paired with one of
// releaseUnit.
func (s *Server) openUnit(ctx context.Context, l LUN) (*unit, error) {
	s.mu.Lock()
	u := s.units[l.Volume]
	if u == nil {
		u = &unit{volume: l.Volume, form: l.form(), opened: make(chan struct{}), paths: map[*path]struct{}{}}
		s.units[l.Volume] = u
		go s.open(u)
	}
	u.refs++
	s.mu.Unlock()
	var err error
	select {
	case <-u.opened:
		err = u.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil && u.form != l.form() {
		err = fmt.Errorf("it is in use as another kind of disk, with blocks of %d bytes: %w", u.form.block, ErrInvalid)
	}
	if err != nil {
		s.releaseUnit(u)
		return nil, fmt.Errorf("opening volume %s: %w", l.Volume, err)
	}
	return u, nil
}

// open opens the volume. It is not bound to the first login: others may wait for it as well.
func (s *Server) open(u *unit) {
	ctx, cancel := context.WithTimeout(s.ctx, loginTime)
	defer cancel()
	dev, info, err := s.cfg.Catalog.Open(ctx, u.volume)
	if err == nil {
		err = s.equip(u, dev, info)
	}
	u.err = err
	close(u.opened)
}

// equip makes the unit's LU. While it is not known what is reserved there is none: the volume is given back, to be opened again later.
func (s *Server) equip(u *unit, dev block.Device, info block.VolumeInfo) error {
	lu := scsi.NewLU(dev, info, scsi.Options{Removable: u.form.removable, BlockSize: u.form.block, PhysicalBlock: u.form.physical,
		Reservations: s.cfg.Reservations, Peers: s, Host: host{s, u}})
	if err := lu.Err(); err != nil {
		lu.Close()
		return errors.Join(err, dev.Close())
	}
	u.dev, u.lu = dev, lu
	lu.Resume()
	return nil
}

// releaseUnit gives a use back; the last one closes the volume.
func (s *Server) releaseUnit(u *unit) {
	s.mu.Lock()
	u.refs--
	last := u.refs == 0
	if (last || u.failed()) && s.units[u.volume] == u {
		delete(s.units, u.volume)
	}
	s.mu.Unlock()
	if !last {
		return
	}
	<-u.opened
	if u.err != nil {
		return
	}
	u.lu.Close()
	if err := u.dev.Close(); err != nil {
		s.log.Warn("closing volume failed", "volume", u.volume, "err", err)
	}
}

// failed reports whether the volume could not be opened.
func (u *unit) failed() bool {
	select {
	case <-u.opened:
		return u.err != nil
	default:
		return false
	}
}

// EachPeer implements scsi.Peers.
func (s *Server) EachPeer(f func(*scsi.LU) bool) {
	s.mu.Lock()
	var open []*scsi.LU
	for _, u := range s.units {
		select {
		case <-u.opened:
			if u.err == nil {
				open = append(open, u.lu)
			}
		default:
		}
	}
	s.mu.Unlock()
	for _, lu := range open {
		if !f(lu) {
			return
		}
	}
}

func (u *unit) each(f func(*path)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for p := range u.paths {
		f(p)
	}
}

// path is a session's way to a logical unit.
type path struct {
	sess   *session
	lun    LUN
	meter  *meter
	at     atomic.Pointer[end] // nil until the volume is open
	batch  []*block.Request    // the reader's, to be submitted
	ctx    context.Context     // of opening
	cancel context.CancelFunc
	ended  chan struct{} // closed when nothing opens the volume any more
	lost   atomic.Bool   // the device can do nothing any more: the volume is to be opened again

	// guarded by session.mu
	inUse int   // tasks
	held  int64 // memory of their buffers
}

// end is what a path leads to.
type end struct {
	unit  *unit
	nexus *scsi.Nexus
}

// Times of opening a volume.
const (
	reopenTime = time.Second // between attempts, at first
	reopenMost = 10 * time.Second
)

// newPath begins to open a LUN for a session. The outcome of the first attempt goes to first; others follow until one succeeds
// or the path is closed.
func (s *session) newPath(l LUN, first chan<- error) *path {
	p := &path{sess: s, lun: l, meter: s.srv.metrics.meter(l.Volume), ended: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(s.srv.ctx)
	go p.open(first)
	return p
}

func (p *path) open(first chan<- error) {
	defer close(p.ended)
	for wait := reopenTime; ; wait = min(2*wait, reopenMost) {
		u, err := p.sess.srv.openUnit(p.ctx, p.lun)
		if err == nil {
			p.attach(u)
		}
		if first != nil {
			first <- err
			first = nil
		}
		if err == nil || p.ctx.Err() != nil || !p.pause(wait) {
			return
		}
	}
}

func (p *path) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.ctx.Done():
		return false
	}
}

func (p *path) attach(u *unit) {
	s := p.sess
	port := scsi.Port{Initiator: s.port, Target: s.target.name, Tag: s.tag, LUN: lunID(p.lun.Number),
		LUNs: s.target.lunIDs, ReadOnly: p.lun.ReadOnly, Groups: s.target}
	n := u.lu.Attach(port, func(done func()) { s.abortPath(p, done) })
	u.mu.Lock()
	u.paths[p] = struct{}{}
	u.mu.Unlock()
	p.at.Store(&end{u, n})
}

// lose has the reader open the volume again, whose device lost its lease or was closed. Commands are told to come again.
func (p *path) lose() {
	if p.lost.CompareAndSwap(false, true) {
		p.sess.relist.Store(true)
		p.sess.wake()
	}
}

// retire has the next user of the path's volume open it anew.
func (p *path) retire() {
	if e := p.at.Load(); e != nil {
		p.sess.srv.retireUnit(e.unit)
	}
}

// close takes the path out of its unit. Its tasks have ended.
func (p *path) close() {
	p.cancel()
	<-p.ended
	if e := p.at.Load(); e != nil {
		e.nexus.Detach()
		e.unit.mu.Lock()
		delete(e.unit.paths, p)
		e.unit.mu.Unlock()
	}
	p.sess.srv.metrics.release(p.meter)
}

// release gives the unit back, after which the volume may close.
func (p *path) release() {
	if e := p.at.Load(); e != nil {
		p.sess.srv.releaseUnit(e.unit)
	}
}

// submit gives the batch's requests to the device.
func (p *path) submit() {
	if len(p.batch) > 0 {
		p.at.Load().unit.lu.Submit(p.batch)
		clear(p.batch)
		p.batch = p.batch[:0]
	}
}

// missing reports whether an error means that there is no such volume.
func missing(err error) bool { return errors.Is(err, block.ErrNotFound) }

// lunID is a LUN in its eight-byte form: peripheral addressing, or flat where that does not reach.
func lunID(n int) uint64 {
	if n < 256 {
		return uint64(n) << 48
	}
	return uint64(0x4000|n) << 48
}
