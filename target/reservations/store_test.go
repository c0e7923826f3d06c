package reservations

import (
	"bytes"
	"context"
	"reflect"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/targetpb"
	"pstorage/target/scsi"
)

var (
	volumeID = [16]byte{7}
	clientID = [16]byte{0xa}
)

// registry is the metadata servers: one file, whose lease has an epoch.
type registry struct {
	targetpb.TargetsClient
	epoch uint64
	kept  targetpb.Reservations
	mute  int   // so many saves are made, and not answered
	down  error // what loads answer
}

func (r *registry) LoadReservations(context.Context, *targetpb.LoadReservationsRequest, ...grpc.CallOption) (*targetpb.Reservations, error) {
	if r.down != nil {
		return nil, r.down
	}
	return &targetpb.Reservations{Revision: r.kept.Revision, State: r.kept.State}, nil
}

func (r *registry) SaveReservations(_ context.Context, in *targetpb.SaveReservationsRequest, _ ...grpc.CallOption) (*targetpb.Reservations, error) {
	switch {
	case in.Epoch != r.epoch || !bytes.Equal(in.Client, clientID[:]):
		return nil, status.Error(codes.FailedPrecondition, "the lease is not held with this epoch")
	case in.Revision != r.kept.Revision:
		return nil, status.Error(codes.Aborted, "changed meanwhile")
	}
	r.kept.Revision, r.kept.State = in.Revision+1, in.State
	if r.mute > 0 {
		r.mute--
		return nil, status.Error(codes.DeadlineExceeded, "no answer")
	}
	return &targetpb.Reservations{Revision: r.kept.Revision, State: r.kept.State}, nil
}

// process holds the volume with an epoch; 0: it does not.
type process struct{ epoch uint64 }

func (p *process) Lease(volume [16]byte) (Lease, bool) {
	return Lease{File: 16, Epoch: p.epoch, Client: clientID}, p.epoch > 0 && volume == volumeID
}

func state(generation uint32) scsi.ReservationState {
	s := sample()
	s.Generation = generation
	return s
}

func load(t *testing.T, s *Store, want scsi.ReservationState) {
	t.Helper()
	if got, err := s.Load(volumeID); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("loaded %+v, %v; want %+v", got, err, want)
	}
}

func save(t *testing.T, s *Store, generation uint32) {
	t.Helper()
	if err := s.Save(volumeID, state(generation)); err != nil {
		t.Fatal(err)
	}
}

func TestReservationsMoveWithTheLease(t *testing.T) {
	r := &registry{epoch: 1}
	old := New(r, &process{1})
	load(t, old, scsi.ReservationState{})
	save(t, old, 1)
	save(t, old, 2)
	r.epoch = 2
	next := New(r, &process{2})
	load(t, next, state(2))
	if err := old.Save(volumeID, state(3)); err == nil {
		t.Error("who has lost the lease has saved")
	}
	save(t, next, 4)
	load(t, next, state(4))
}

// A process that gets the lease anew, after another had it, must not save over what it has not seen.
func TestALeaseThatCameBackIsNotTheOneLoadedUnder(t *testing.T) {
	r, p := &registry{epoch: 1}, &process{1}
	s := New(r, p)
	load(t, s, scsi.ReservationState{})
	r.epoch, p.epoch = 3, 3
	if err := s.Save(volumeID, state(1)); err == nil {
		t.Error("saved under an epoch that it was not loaded under")
	}
	load(t, s, scsi.ReservationState{})
	save(t, s, 1)
}

func TestNobodySavesWhatWasNeverLoaded(t *testing.T) {
	r := &registry{epoch: 1}
	s := New(r, &process{})
	if _, err := s.Load(volumeID); err == nil {
		t.Error("loaded without a lease")
	}
	if err := s.Save(volumeID, state(1)); err == nil || r.kept.Revision != 0 {
		t.Errorf("saved without a lease: %v", err)
	}
	r.down = status.Error(codes.Unavailable, "no leader")
	if _, err := New(r, &process{1}).Load(volumeID); err == nil {
		t.Error("loaded although nobody answered")
	}
}

// A save that was made, and not answered, is one that failed: the state is as before for the initiators, and the next save goes over it.
func TestASaveWithoutAnAnswerIsSettledByTheNext(t *testing.T) {
	r := &registry{epoch: 1}
	s := New(r, &process{1})
	load(t, s, scsi.ReservationState{})
	r.mute = 1
	if err := s.Save(volumeID, state(1)); err == nil {
		t.Fatal("a save that nobody answered has worked")
	}
	save(t, s, 2)
	if r.kept.Revision != 2 {
		t.Errorf("revision %d, want 2", r.kept.Revision)
	}
	load(t, s, state(2))
}

func TestASaveInDoubtDoesNotGoOverAnothers(t *testing.T) {
	r := &registry{epoch: 1}
	s := New(r, &process{1})
	load(t, s, scsi.ReservationState{})
	r.mute = 1
	if err := s.Save(volumeID, state(1)); err == nil {
		t.Fatal("a save that nobody answered has worked")
	}
	r.kept.State = []byte("another's")
	if err := s.Save(volumeID, state(2)); err == nil || string(r.kept.State) != "another's" {
		t.Errorf("saved over another's: %v", err)
	}
}

func TestDurable(t *testing.T) {
	if !New(nil, nil).Durable() {
		t.Error("initiators may not ask for what is kept")
	}
}
