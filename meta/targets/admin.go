package targets

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/leader"
	"pstorage/meta/targetpb"
)

// CreateTarget makes a target, stopped and without LUNs.
func (s *Service) CreateTarget(ctx context.Context, in *targetpb.CreateTargetRequest) (*targetpb.Target, error) {
	t := &fsmpb.Target{Name: in.Name, Portals: portalsIn(in.Portals), Initiators: in.Initiators, Account: in.Account, Mutual: in.Mutual,
		Host: in.Host, Comment: in.Comment}
	if err := s.checkSecrets(t.Account, t.Mutual); err != nil {
		return nil, leader.Status(err)
	}
	r, err := s.propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_CreateTarget{CreateTarget: &fsmpb.CreateTarget{Target: t}}})
	if err != nil {
		return nil, leader.Status(err)
	}
	return s.one(r.(*fsmpb.Target).Name)
}

// setTo is the command that makes a target of another, nil if it is so already.
func (s *Service) setTo(now *current, next *fsmpb.Target) (c *fsmpb.Command, err error) {
	err = s.leader.View(func(v *fsm.View) error {
		next, err = v.Checked(next)
		return err
	})
	if err != nil || proto.Equal(now.Target, next) {
		return nil, err
	}
	return &fsmpb.Command{Command: &fsmpb.Command_SetTarget{SetTarget: &fsmpb.SetTarget{Revision: now.Revision, Target: next}}}, nil
}

// SetTarget changes what a target is; what a running one is served with, only while it is stopped.
func (s *Service) SetTarget(ctx context.Context, in *targetpb.SetTargetRequest) (*targetpb.Target, error) {
	return s.change(ctx, in.Name, in.Revision, func(now *current) (*fsmpb.Command, error) {
		next := proto.CloneOf(now.Target)
		setServed(next, in)
		if in.Comment != nil {
			next.Comment = *in.Comment
		}
		if in.Groups != nil {
			next.Groups = groupsIn(in.Groups.Groups)
		}
		c, err := s.setTo(now, next)
		if err != nil || c == nil {
			return nil, err
		}
		if !sameServed(now.Target, c.GetSetTarget().Target) {
			if err := s.stopped(now); err != nil {
				return nil, err
			}
		}
		return c, s.checkSecrets(next.Account, next.Mutual)
	})
}

// setServed puts what a target is served with into next. Groups that have no portal any more go.
func setServed(next *fsmpb.Target, in *targetpb.SetTargetRequest) {
	if len(in.Portals) > 0 {
		next.Portals = portalsIn(in.Portals)
		next.Groups = slices.DeleteFunc(next.Groups, func(g *fsmpb.PortGroup) bool {
			return !slices.ContainsFunc(next.Portals, func(p *fsmpb.Portal) bool { return max(p.Group, 1) == g.Id })
		})
	}
	if in.Account != nil {
		next.Account = *in.Account
	}
	if in.Mutual != nil {
		next.Mutual = *in.Mutual
	}
	if in.Initiators != nil {
		next.Initiators = in.Initiators.Names
	}
}

func sameServed(a, b *fsmpb.Target) bool {
	return a.Account == b.Account && a.Mutual == b.Mutual && slices.Equal(a.Initiators, b.Initiators) &&
		slices.EqualFunc(a.Portals, b.Portals, func(p, q *fsmpb.Portal) bool { return proto.Equal(p, q) })
}

// RegisterTarget puts a stopped target on another node, or on none.
func (s *Service) RegisterTarget(ctx context.Context, in *targetpb.RegisterTargetRequest) (*targetpb.Target, error) {
	return s.change(ctx, in.Name, in.Revision, func(now *current) (*fsmpb.Command, error) {
		if now.Host == in.Host {
			return nil, nil
		}
		if err := s.stopped(now); err != nil {
			return nil, err
		}
		next := proto.CloneOf(now.Target)
		next.Host = in.Host
		return s.setTo(now, next)
	})
}

// StartTarget has a target served by its node.
func (s *Service) StartTarget(ctx context.Context, in *targetpb.StartTargetRequest) (*targetpb.Target, error) {
	return s.change(ctx, in.Name, in.Revision, func(now *current) (*fsmpb.Command, error) {
		if now.Host == "" {
			return nil, refused("target %s is registered on no node", now.Name)
		}
		if err := s.own(now, in.Host); err != nil {
			return nil, err
		}
		next := proto.CloneOf(now.Target)
		next.Enabled = true
		return s.setTo(now, next)
	})
}

// own refuses what another node than the target's asks for. Who names none speaks for the administrator.
func (s *Service) own(now *current, host string) error {
	if host == "" || now.Host == "" || host == now.Host {
		return nil
	}
	return refused("target %s is registered on node %s", now.Name, s.nameOf(now.Host))
}

// StopTarget ends serving a target, unless initiators are connected.
func (s *Service) StopTarget(ctx context.Context, in *targetpb.StopTargetRequest) (*targetpb.StopTargetReply, error) {
	var connected bool
	t, err := s.change(ctx, in.Name, in.Revision, func(now *current) (c *fsmpb.Command, err error) {
		if connected = false; !now.Enabled {
			return nil, nil
		}
		if !in.Force {
			if err := s.own(now, in.Host); err != nil {
				return nil, err
			}
			if connected, err = s.connected(now); connected || err != nil {
				return nil, err
			}
		}
		next := proto.CloneOf(now.Target)
		next.Enabled = false
		return s.setTo(now, next)
	})
	if err != nil {
		return nil, err
	}
	return &targetpb.StopTargetReply{Target: t, Connected: connected}, nil
}

// DeleteTarget forgets a stopped target and the volumes of its LUNs.
func (s *Service) DeleteTarget(ctx context.Context, in *targetpb.DeleteTargetRequest) (*targetpb.DeleteTargetReply, error) {
	name, err := fsm.TargetName(in.Name)
	if err != nil {
		return nil, leader.Status(err)
	}
	err = s.forget(ctx, name, in.Revision, func(now *current, going *leaving) (*fsmpb.Command, error) {
		if err := s.deletable(now, in); err != nil {
			return nil, err
		}
		c := &fsmpb.DeleteTarget{Name: now.Name, Revision: now.Revision}
		for _, l := range now.Luns {
			volume, err := s.judge(now, l, in.Force, going)
			if err != nil {
				return nil, err
			}
			c.Volumes = append(c.Volumes, volume)
		}
		return &fsmpb.Command{Command: &fsmpb.Command_DeleteTarget{DeleteTarget: c}}, nil
	})
	if err != nil {
		return nil, leader.Status(err)
	}
	return &targetpb.DeleteTargetReply{}, nil
}

// deletable: force is for targets of other nodes, and for those that a node has not stopped serving yet; not for those that are to run.
func (s *Service) deletable(now *current, in *targetpb.DeleteTargetRequest) error {
	switch {
	case now.Enabled:
		return refused("target %s is started: it has to be stopped before", now.Name)
	case in.Force:
		return nil
	}
	if err := s.own(now, in.Host); err != nil {
		return err
	}
	return s.stopped(now)
}

// ListTargets describes targets: one, those of a node, or all.
func (s *Service) ListTargets(_ context.Context, in *targetpb.ListTargetsRequest) (*targetpb.ListTargetsReply, error) {
	out := &targetpb.ListTargetsReply{}
	if in.Name != "" {
		name, err := fsm.TargetName(in.Name)
		if err != nil {
			return nil, leader.Status(err)
		}
		t, err := s.one(name)
		if err != nil {
			return nil, err
		}
		out.Targets = append(out.Targets, t)
		return out, nil
	}
	err := s.leader.View(func(v *fsm.View) error {
		for _, t := range v.Targets() {
			if in.Host == "" || in.Host == t.Host {
				out.Targets = append(out.Targets, s.describe(v, t, in.Sessions))
			}
		}
		return nil
	})
	return out, leader.Status(err)
}
