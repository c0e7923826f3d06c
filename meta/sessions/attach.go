package sessions

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
)

const (
	// registerTimeout is how long a new stream may take to say who it is; inventoryTimeout, to send all of its inventory.
	registerTimeout  = 10 * time.Second
	inventoryTimeout = 5 * time.Minute
	// maxInventory is the most replicas of one server: 2^22 of 64 MiB are 256 TiB.
	maxInventory = 1 << 22
	// admissionPage is the most chunks of one Admission message.
	admissionPage = 4096
)

// Host is what a session needs of the leader beyond reading.
type Host interface {
	State
	// Registered notes where a server is now (it commits that if it is new).
	Registered(ctx context.Context, r *metapb.Register) error
	// EndSyncing ends every rebuild onto the server: it is no longer syncing when it attaches anew (R7).
	EndSyncing(ctx context.Context, server uint32) error
	// Trouble is what a server found out about its own replicas.
	Trouble(s *Session, t *metapb.Trouble)
}

// Serve runs a server's session on a stream until it ends.
func (r *Registry) Serve(stream Stream, host Host) error {
	reg, err := r.register(stream, host)
	if err != nil {
		return err
	}
	s := newSession(r, reg)
	if err := r.enter(s); err != nil {
		return refuse(stream, err)
	}
	defer r.leave(s)
	defer s.End(ErrGone)
	go s.write(stream)
	if err := r.admit(stream, s, host); err != nil {
		return err
	}
	go s.runLane()
	go s.read(stream, host.Trouble)
	r.log.Info("chunk server is attached", "server", s.ID, "address", s.Address, "host", s.Host, "suspects", s.SuspectCount())
	r.changed()
	select {
	case <-s.done:
	case <-stream.Context().Done():
	}
	r.log.Info("chunk server is gone", "server", s.ID, "reason", s.reason())
	return s.reason()
}

func (s *Session) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func refuse(stream Stream, why error) error {
	_ = stream.Send(&metapb.ToServer{Message: &metapb.ToServer_Admission{Admission: &metapb.Admission{Last: true, Refused: why.Error(),
		Removed: errors.Is(why, fsm.ErrDropped)}}})
	return fmt.Errorf("%w: %w", ErrRefused, why)
}

// receive waits for one message, at most for the time given. The goroutine of a Recv that comes too late ends with the stream.
func receive(stream Stream, within time.Duration) (*metapb.FromServer, error) {
	type received struct {
		m   *metapb.FromServer
		err error
	}
	got := make(chan received, 1)
	go func() {
		m, err := stream.Recv()
		got <- received{m, err}
	}()
	timer := time.NewTimer(within)
	defer timer.Stop()
	select {
	case r := <-got:
		return r.m, r.err
	case <-timer.C:
		return nil, ErrTimeout
	}
}

// register takes the first message and checks that the server belongs here.
func (r *Registry) register(stream Stream, host Host) (*metapb.Register, error) {
	m, err := receive(stream, registerTimeout)
	if err != nil {
		return nil, err
	}
	reg := m.GetRegister()
	if reg == nil {
		return nil, fmt.Errorf("%T in place of Register: %w", m.Message, ErrProtocol)
	}
	err = host.View(func(v *fsm.View) error {
		if _, id := v.Cluster(); !bytes.Equal(id, reg.ClusterId) {
			return fmt.Errorf("it belongs to cluster %x, this is %x", reg.ClusterId, id)
		}
		switch known := v.Server(reg.Id); {
		case known == nil:
			return fmt.Errorf("chunk server %d: %w", reg.Id, fsm.ErrUnknownServer)
		case known.Dropped:
			return fmt.Errorf("chunk server %d: %w", reg.Id, fsm.ErrDropped)
		}
		return nil
	})
	if err != nil {
		return nil, refuse(stream, err)
	}
	if err := host.Registered(stream.Context(), reg); err != nil {
		return nil, err
	}
	return reg, nil
}

// held is one replica of the inventory.
type held struct {
	key     fsm.ChunkKey
	version uint64
	state   uint8
	suspect uint8
	damaged bool
}

// inventory takes pages until the last.
func inventory(stream Stream, s *Session) (all []held, err error) {
	for deadline := time.Now().Add(inventoryTimeout); ; {
		m, err := receive(stream, time.Until(deadline))
		if err != nil {
			return nil, err
		}
		s.hear()
		page := m.GetInventory()
		if page == nil {
			if m.GetHeartbeat() != nil {
				s.beatWith(m.GetHeartbeat())
				continue
			}
			return nil, fmt.Errorf("%T in place of an inventory: %w", m.Message, ErrProtocol)
		}
		if len(all)+len(page.Replicas) > maxInventory {
			return nil, fmt.Errorf("more than %d replicas: %w", maxInventory, ErrProtocol)
		}
		for _, r := range page.Replicas {
			all = append(all, held{keyOf(r.File, r.Index), r.Version, uint8(min(r.State, 255)), uint8(min(r.Suspicion, 255)), r.Damaged})
		}
		if page.Last {
			return all, nil
		}
	}
}

// admit tells the server what each of its replicas is. From the moment the session was entered, changes of members reach it as commands;
// they wait in the lane until it is admitted. What an earlier session has made is decided about first.
func (r *Registry) admit(stream Stream, s *Session, host Host) error {
	all, err := inventory(stream, s)
	if err != nil {
		return fmt.Errorf("inventory of chunk server %d: %w", s.ID, err)
	}
	if err := host.EndSyncing(stream.Context(), s.ID); err != nil {
		return fmt.Errorf("admit chunk server %d: %w", s.ID, err)
	}
	if err := r.waits.wait(stream.Context(), s.ID); err != nil {
		return fmt.Errorf("admit chunk server %d: %w", s.ID, err)
	}
	a := &admission{server: s.ID}
	err = host.View(func(v *fsm.View) error {
		if known := v.Server(s.ID); known == nil || known.Dropped { // while it sent its inventory
			return fmt.Errorf("chunk server %d: %w", s.ID, fsm.ErrDropped)
		}
		a.judge(v, all)
		return nil
	})
	if err != nil {
		return fmt.Errorf("admit chunk server %d: %w", s.ID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	a.mark(s)
	for _, page := range a.pages() {
		if err := s.sendPage(page); err != nil {
			return err
		}
	}
	s.since = time.Now()
	s.hear()
	s.admitted.Store(true)
	return nil
}

func (s *Session) sendPage(page *metapb.Admission) error {
	return s.send(&metapb.ToServer{Message: &metapb.ToServer_Admission{Admission: page}})
}
