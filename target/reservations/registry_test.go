package reservations

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"pstorage/meta/metatest"
	"pstorage/meta/targetpb"
	"pstorage/meta/targets"
	"pstorage/target/scsi"
)

// direct is the way to the leader of the moment, without a network.
type direct struct {
	targetpb.TargetsClient
	c *metatest.Cluster
}

func (d *direct) service() *targets.Service {
	return targets.New(d.c.Leader(), slog.New(slog.DiscardHandler))
}

func (d *direct) LoadReservations(ctx context.Context, in *targetpb.LoadReservationsRequest, _ ...grpc.CallOption) (*targetpb.Reservations, error) {
	return d.service().LoadReservations(ctx, in)
}

func (d *direct) SaveReservations(ctx context.Context, in *targetpb.SaveReservationsRequest, _ ...grpc.CallOption) (*targetpb.Reservations, error) {
	return d.service().SaveReservations(ctx, in)
}

// held is a volume that is open.
type held metatest.Volume

func (h *held) Lease(volume [16]byte) (Lease, bool) {
	return Lease{File: h.File, Epoch: h.Epoch, Client: [16]byte(h.ID.Id)}, volume == volumeID
}

// With the metadata servers' own comparison: reservations survive a change of leader and of the front end, and one that has slept changes nothing.
func TestReservationsSurviveLeadersAndFrontEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := metatest.New(t)
		c.Lead()
		defer c.Close()
		c.Create("/v", 1, 1)
		old := New(&direct{c: c}, (*held)(c.Client('a', 1).Open("/v")))
		load(t, old, scsi.ReservationState{})
		save(t, old, 1)
		c.Lead()
		save(t, old, 2)
		time.Sleep(time.Minute) // it does not renew its lease
		next := New(&direct{c: c}, (*held)(c.Client('b', 1).Open("/v")))
		load(t, next, state(2))
		if err := old.Save(volumeID, state(3)); err == nil {
			t.Error("a front end that has slept through its lease has changed reservations")
		}
		save(t, next, 4)
		// The same front end, started again, has another epoch.
		again := New(&direct{c: c}, (*held)(c.Client('b', 2).Open("/v")))
		load(t, again, state(4))
		if err := next.Save(volumeID, state(5)); err == nil {
			t.Error("the process before has changed reservations")
		}
		save(t, again, 6)
		// What is being sanitized is kept beside them.
		s := sanitized()
		if err := again.Save(volumeID, s); err != nil {
			t.Fatal(err)
		}
		c.Lead()
		load(t, New(&direct{c: c}, (*held)(c.Client('b', 3).Open("/v"))), s)
	})
}
