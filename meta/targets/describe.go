package targets

import (
	"fmt"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/targetpb"
)

// describe tells of a target what is kept, how its volumes are, and what its node last said.
func (s *Service) describe(v *fsm.View, t *fsmpb.Target, sessions bool) *targetpb.Target {
	out := &targetpb.Target{
		Name: t.Name, Revision: t.Revision, Portals: portalsOut(t.Portals), Initiators: t.Initiators, Account: t.Account, Mutual: t.Mutual,
		Groups: groupsOut(t.Groups), Host: t.Host, Enabled: t.Enabled, Comment: t.Comment,
	}
	held := false
	for _, l := range t.Luns {
		lun := &targetpb.Lun{Number: l.Number, BlockSize: l.BlockSize, ReadOnly: l.ReadOnly, File: l.File}
		if f, err := v.File(l.File); err == nil {
			lun.Path, lun.Size = f.Path, f.Node.Size
			lun.Used = min(f.Counts.Chunks*f.Policy.ChunkSize, f.Node.Size)
			held = held || f.Node.Holder != nil
		}
		out.Luns = append(out.Luns, lun)
	}
	served, name, how := s.report(t.Host, t.Name)
	out.Status, out.Failure = state(t, served, how, held)
	if out.Failure == "" && out.Status == targetpb.Target_FAILED {
		out.Failure = fmt.Sprintf("node %s is not heard from", name)
	}
	if t.Host != "" {
		out.HostName = name
	}
	if sessions {
		out.Sessions = served.GetSessions()
	}
	return out
}

// state is a target's, by what is kept, what its node last said, how the node is, and whether somebody holds a volume of it.
func state(t *fsmpb.Target, served *targetpb.Served, how hearing, held bool) (now targetpb.Target_Status, failure string) {
	switch {
	case t.Host == "":
		return targetpb.Target_UNREGISTERED, ""
	case !t.Enabled && how == alive && served != nil, !t.Enabled && how == unknown && held:
		return targetpb.Target_STOPPING, ""
	case !t.Enabled:
		return targetpb.Target_STOPPED, ""
	case how == silent:
		return targetpb.Target_FAILED, ""
	case served == nil:
		return targetpb.Target_STARTING, ""
	case served.Running:
		return targetpb.Target_RUNNING, served.Failure // of some of its portals
	case served.Failure != "":
		return targetpb.Target_FAILED, served.Failure
	}
	return targetpb.Target_STARTING, ""
}

// stopped refuses what needs the target to be stopped: it is to run, or its node may still serve it. A node that is not heard from is not waited
// for: the leases on the volumes keep it from doing harm.
func (s *Service) stopped(now *current) error {
	if now.Enabled {
		return refused("target %s is started: it has to be stopped before", now.Name)
	}
	held := false
	for _, f := range now.volumes {
		held = held || f.Node.Holder != nil
	}
	served, name, how := s.report(now.Host, now.Name)
	if is, _ := state(now.Target, served, how, held); is == targetpb.Target_STOPPING {
		return notYet("target %s is being stopped on node %s", now.Name, name)
	}
	return nil
}

// connected tells whether initiators are, as the target's node has said.
func (s *Service) connected(now *current) (bool, error) {
	served, name, how := s.report(now.Host, now.Name)
	switch how {
	case unknown:
		return false, notYet("target %s: node %s has not said yet who is connected", now.Name, name)
	case silent:
		return false, refused("target %s: node %s is not heard from, so nobody knows who is connected: it can be forced", now.Name, name)
	}
	return len(served.GetSessions()) > 0, nil
}

func portalsIn(in []*targetpb.Portal) (out []*fsmpb.Portal) {
	for _, p := range in {
		out = append(out, &fsmpb.Portal{Address: p.GetAddress(), Group: p.GetGroup()})
	}
	return out
}

func portalsOut(in []*fsmpb.Portal) (out []*targetpb.Portal) {
	for _, p := range in {
		out = append(out, &targetpb.Portal{Address: p.Address, Group: p.Group})
	}
	return out
}

func groupsIn(in []*targetpb.Group) (out []*fsmpb.PortGroup) {
	for _, g := range in {
		out = append(out, &fsmpb.PortGroup{Id: g.GetId(), State: g.GetState(), Preferred: g.GetPreferred()})
	}
	return out
}

func groupsOut(in []*fsmpb.PortGroup) (out []*targetpb.Group) {
	for _, g := range in {
		out = append(out, &targetpb.Group{Id: g.Id, State: g.State, Preferred: g.Preferred})
	}
	return out
}
