package targets

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/leader"
	"pstorage/meta/targetpb"
)

// AddLun makes a LUN and its volume.
func (s *Service) AddLun(ctx context.Context, in *targetpb.AddLunRequest) (*targetpb.Target, error) {
	return s.change(ctx, in.Name, in.Revision, func(now *current) (*fsmpb.Command, error) {
		return &fsmpb.Command{Command: &fsmpb.Command_AddLun{AddLun: &fsmpb.AddLun{
			Name: now.Name, Revision: now.Revision, Number: in.Number, Size: in.Size, BlockSize: in.BlockSize, ReadOnly: in.ReadOnly, Created: time.Now().Unix(),
			Attributes: &fsmpb.Attributes{Norm: in.ReplicasNorm, Min: in.ReplicasMin, FailureDomain: in.FailureDomain, Tier: in.Tier},
		}}}, nil
	})
}

// GrowLun grows a LUN's volume, also while it is in use.
func (s *Service) GrowLun(ctx context.Context, in *targetpb.GrowLunRequest) (*targetpb.Target, error) {
	return s.change(ctx, in.Name, in.Revision, func(now *current) (*fsmpb.Command, error) {
		l, err := lun(now, in.Number)
		if err != nil || now.volumes[l.File].Node.Size == in.Size {
			return nil, err
		}
		return &fsmpb.Command{Command: &fsmpb.Command_GrowLun{GrowLun: &fsmpb.GrowLun{
			Name: now.Name, Revision: now.Revision, Number: in.Number, Size: in.Size}}}, nil
	})
}

// RemoveLun forgets a LUN and its volume. With force, although initiators are connected: they lose it.
func (s *Service) RemoveLun(ctx context.Context, in *targetpb.RemoveLunRequest) (*targetpb.Target, error) {
	name, err := fsm.TargetName(in.Name)
	if err != nil {
		return nil, leader.Status(err)
	}
	err = s.forget(ctx, name, in.Revision, func(now *current, going *leaving) (*fsmpb.Command, error) {
		l, err := lun(now, in.Number)
		if err != nil {
			return nil, err
		}
		if now.Enabled && !in.Force {
			if err := s.unconnected(now); err != nil {
				return nil, err
			}
		}
		volume, err := s.judge(now, l, in.Force, going)
		if err != nil {
			return nil, err
		}
		return &fsmpb.Command{Command: &fsmpb.Command_RemoveLun{RemoveLun: &fsmpb.RemoveLun{
			Name: now.Name, Revision: now.Revision, Number: in.Number, Volume: volume}}}, nil
	})
	if err != nil {
		return nil, leader.Status(err)
	}
	return s.one(name)
}

func (s *Service) unconnected(now *current) error {
	connected, err := s.connected(now)
	if connected {
		err = refused("initiators are connected to target %s", now.Name)
	}
	return err
}

func lun(now *current, number uint32) (*fsmpb.Lun, error) {
	for _, l := range now.Luns {
		if l.Number == number {
			return l, nil
		}
	}
	return nil, fmt.Errorf("target %s: LUN %d: %w", now.Name, number, fsm.ErrUnknownLUN)
}

// leaving are volumes that are judged to go; nobody renews their leases until it ends.
type leaving []func(gone bool)

func (l *leaving) end(gone bool) {
	for _, end := range *l {
		end(gone)
	}
	*l = nil
}

// forget commits what forgets volumes. Each that may go, as plan judges, is kept from being renewed until it is known whether it went.
func (s *Service) forget(ctx context.Context, name string, revision uint64, plan func(*current, *leaving) (*fsmpb.Command, error)) error {
	var going leaving
	err := s.commit(ctx, name, revision, func(now *current) (*fsmpb.Command, error) {
		going.end(false)
		if err := now.at(revision); err != nil {
			return nil, err // before anybody's lease is touched
		}
		return plan(now, &going)
	})
	going.end(err == nil)
	return err
}

// judge decides whether a LUN's volume may go, as the package comment says.
func (s *Service) judge(now *current, l *fsmpb.Lun, force bool, going *leaving) (*fsmpb.VolumeEpoch, error) {
	f := now.volumes[l.File]
	end, err := s.leader.Removing(f, func(h *fsmpb.Holder) bool {
		own, connected := s.served(now, h.Id)
		return own && (force || !connected)
	})
	if err != nil {
		return nil, fmt.Errorf("target %s: LUN %d: %w", now.Name, l.Number, err)
	}
	*going = append(*going, end)
	return &fsmpb.VolumeEpoch{File: l.File, Epoch: f.Node.Epoch}, nil
}

// served tells whether a client is that of the target's node, and whether that has initiators connected to the target.
func (s *Service) served(now *current, client []byte) (own, connected bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[now.Host]
	if n == nil || len(n.client) == 0 || !bytes.Equal(n.client, client) {
		return false, false
	}
	return true, len(n.served[now.Name].GetSessions()) > 0
}
