// Package reservations keeps what initiators have reserved, and what SANITIZE has begun, with the metadata servers, so that it outlives the process that serves a volume, and is
// there wherever the volume is served next.
//
// # Format (versions 1 and 2) of what is kept of a volume; numbers are big endian
//
//	0     1   version: 2 where there is a SANITIZE operation, which older programs refuse to serve the volume under
//	1     1   flags: 1: the reservations are to survive a loss of power (APTPL)
//	2     1   type of the reservation, 0: none
//	3     4   generation
//	7     2   number of registrations
//	9         port: the reservation's holder
//	          registrations, each: u64 key, port
//	          version 2: sanitization
//
//	port: u16 relative identifier of the target port · u8 n · n bytes: name of the initiator port
//
//	sanitization: u8 service action · u8 flags: 1: unrestricted (AUSE), 2: failed, 4: inverted between passes · u8 passes, u8 those that are done ·
//	u64 bytes done of the next pass · u16 n · n bytes: pattern
//
// Of a volume that nobody has ever reserved there is nothing.
//
// # DESIGN
//
// Invariant: a state is saved only over the one that it was made from, and only by the process that has the volume's lease, under the epoch that it had
// when it loaded: the metadata servers compare the revision and the epoch when they commit. So a process that has slept through its lease changes
// nothing, whatever it was about to do, and the next one loads what was committed last.
//
// A save whose outcome is not known (no answer in time) counts as failed. The next one asks what has become of it first, and is made over that.
//
// Goroutines: none of its own. Locks: Store.mu guards the table of volumes; volume.mu is held while one is loaded or saved.
package reservations

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/targetpb"
	"pstorage/target/scsi"
)

const (
	// loadTime and saveTime bound one question to the metadata servers, changes of leader included. Both are well under what initiators wait for a command.
	loadTime = 10 * time.Second
	saveTime = 20 * time.Second
)

// errNotHeld: the volume is not open, or not any more.
var errNotHeld = errors.New("the volume's lease is not held here")

// Lease is the right by which this process uses a volume.
type Lease struct {
	File, Epoch uint64
	Client      [16]byte
}

// Leases knows what this process holds.
type Leases interface {
	// Lease returns the lease of a volume that is open, by the number that block.VolumeInfo has of it.
	Lease(volume [16]byte) (l Lease, ok bool)
}

// Store implements scsi.Reservations with the metadata servers.
type Store struct {
	meta   targetpb.TargetsClient
	leases Leases

	mu      sync.Mutex
	volumes map[[16]byte]*volume
}

// volume is what was loaded of one.
type volume struct {
	mu       sync.Mutex
	lease    Lease
	revision uint64
	doubt    []byte // a save that came to no known end
}

// New returns a store. meta has to follow the leader, as meta/client does.
func New(meta targetpb.TargetsClient, leases Leases) *Store {
	return &Store{meta: meta, leases: leases, volumes: map[[16]byte]*volume{}}
}

// Durable implements scsi.Reservations: what was saved survives.
func (s *Store) Durable() bool { return true }

func (s *Store) volume(id [16]byte) *volume {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.volumes[id]
	if v == nil {
		v = &volume{}
		s.volumes[id] = v
	}
	return v
}

// Load implements scsi.Reservations. The volume must be open: its lease is what later saves are made under.
func (s *Store) Load(id [16]byte) (state scsi.ReservationState, err error) {
	lease, ok := s.leases.Lease(id)
	if !ok {
		return state, fmt.Errorf("load reservations: %w", errNotHeld)
	}
	v := s.volume(id)
	v.mu.Lock()
	defer v.mu.Unlock()
	reply, err := s.ask(lease.File)
	if err == nil {
		state, err = decode(reply.State)
	}
	if err != nil {
		return state, fmt.Errorf("load reservations of file %d: %w", lease.File, err)
	}
	v.lease, v.revision, v.doubt = lease, reply.Revision, nil
	return state, nil
}

func (s *Store) ask(file uint64) (*targetpb.Reservations, error) {
	ctx, cancel := context.WithTimeout(context.Background(), loadTime)
	defer cancel()
	return s.meta.LoadReservations(ctx, &targetpb.LoadReservationsRequest{File: file})
}

// Save implements scsi.Reservations.
func (s *Store) Save(id [16]byte, state scsi.ReservationState) error {
	v := s.volume(id)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.lease.Epoch == 0 {
		return fmt.Errorf("save reservations: %w", errNotHeld)
	}
	text, err := encode(&state)
	if err == nil {
		err = s.settle(v)
	}
	if err == nil {
		err = s.save(v, text)
	}
	if err != nil {
		return fmt.Errorf("save reservations of file %d: %w", v.lease.File, err)
	}
	return nil
}

// settle finds out what has become of a save that nobody has answered.
func (s *Store) settle(v *volume) error {
	if v.doubt == nil {
		return nil
	}
	reply, err := s.ask(v.lease.File)
	switch {
	case err != nil:
		return err
	case reply.Revision == v.revision+1 && bytes.Equal(reply.State, v.doubt):
		v.revision++
	case reply.Revision != v.revision:
		return fmt.Errorf("revision %d, expected %d: %w", reply.Revision, v.revision, errNotHeld)
	}
	v.doubt = nil
	return nil
}

func (s *Store) save(v *volume, text []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), saveTime)
	defer cancel()
	reply, err := s.meta.SaveReservations(ctx, &targetpb.SaveReservationsRequest{
		File: v.lease.File, Revision: v.revision, State: text, Client: v.lease.Client[:], Epoch: v.lease.Epoch})
	if err == nil {
		v.revision = reply.Revision
		return nil
	}
	switch status.Code(err) {
	case codes.Aborted, codes.FailedPrecondition, codes.NotFound, codes.InvalidArgument: // an answer: nothing was done
	default:
		v.doubt = text
	}
	return err
}

var _ scsi.Reservations = (*Store)(nil)
