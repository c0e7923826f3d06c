package targets

import (
	"context"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/leader"
	"pstorage/meta/targetpb"
)

// LoadReservations returns what is reserved of a volume: what was saved last, by whomever. That this server leads is made sure of before it looks: who has
// just got the lease must not get what was true before.
func (s *Service) LoadReservations(ctx context.Context, in *targetpb.LoadReservationsRequest) (*targetpb.Reservations, error) {
	if err := s.leader.Verify(ctx); err != nil {
		return nil, leader.Status(err)
	}
	var r *fsmpb.Reservations
	err := s.leader.View(func(v *fsm.View) (err error) {
		r, err = v.Reservations(in.File)
		return err
	})
	if err != nil {
		return nil, leader.Status(err)
	}
	return &targetpb.Reservations{Revision: r.Revision, State: r.State}, nil
}

// SaveReservations replaces what is reserved of a volume, for the holder of its lease.
func (s *Service) SaveReservations(ctx context.Context, in *targetpb.SaveReservationsRequest) (*targetpb.Reservations, error) {
	r, err := s.leader.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_SaveReservations{SaveReservations: &fsmpb.SaveReservations{
		File: in.File, Revision: in.Revision, State: in.State, Client: in.Client, Epoch: in.Epoch}}})
	if err != nil {
		return nil, leader.Status(err)
	}
	saved := r.(*fsmpb.Reservations)
	return &targetpb.Reservations{Revision: saved.Revision, State: saved.State}, nil
}
