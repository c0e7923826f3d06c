package registry

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"pstorage/blockstore/block"
	"pstorage/meta/targetpb"
	"pstorage/target/iscsi"
	"pstorage/target/scsi"
)

// export is a target that is served, or that ends.
type export struct {
	*description
	ending  bool
	failure string // of its portals, for the report
	bound   int    // portals that are listened on
}

const (
	// drainTime is how long initiators may take to finish what they have begun when a target ends.
	drainTime = 5 * time.Second
	// releaseTime bounds the closing of a volume.
	releaseTime = 30 * time.Second
)

// reconcile brings exports and listeners in line with what is wanted.
func (a *Agent) reconcile() {
	if a.ctx.Err() != nil {
		return
	}
	for _, name := range a.update() {
		if err := a.server.Changed(a.ctx, name); err != nil {
			a.log.Error("a target's change is not taken over", "target", name, "error", err)
		}
	}
	a.listen()
}

// update makes the exports what is wanted, and returns those whose description has changed. What is no longer wanted begins to end.
func (a *Agent) update() (changed []string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, e := range a.exports {
		if d := a.want[name]; !e.ending && (d == nil || d.err != nil) {
			e.ending = true
			a.log.Info("target ends", "target", name)
			a.wg.Go(func() { a.end(name, e) })
		}
	}
	for name, d := range a.want {
		switch e := a.exports[name]; {
		case d.err != nil:
		case e == nil:
			a.exports[name] = &export{description: d}
			a.log.Info("target begins", "target", name)
		case !e.ending && e.description != d:
			e.description = d
			changed = append(changed, name)
		}
	}
	return changed
}

// end waits until nothing of a target is left: sessions first, then its volumes are closed.
func (a *Agent) end(name string, e *export) {
	for a.ctx.Err() == nil && !a.drained(name) {
		a.log.Warn("a target's commands have not ended yet", "target", name)
	}
	if a.ctx.Err() != nil {
		return // the server's shutdown ends the sessions, and the catalog's end the volumes
	}
	for _, l := range e.info.LUNs {
		a.release(l.Volume)
	}
	a.mu.Lock()
	delete(a.exports, name)
	a.mu.Unlock()
	a.log.Info("target has ended", "target", name)
	a.tell()
}

func (a *Agent) drained(name string) bool {
	ctx, cancel := context.WithTimeout(a.ctx, drainTime)
	defer cancel()
	return a.server.Drain(ctx, name) == nil
}

func (a *Agent) release(volume string) {
	ctx, cancel := context.WithTimeout(a.ctx, releaseTime)
	defer cancel()
	if err := a.cfg.Release(ctx, volume); err != nil && a.ctx.Err() == nil {
		a.log.Warn("a volume was not closed in order", "volume", volume, "error", err)
	}
}

// report says what is served, and what cannot be.
func (a *Agent) report() (served []*targetpb.Served) {
	a.mu.Lock()
	for name, e := range a.exports {
		served = append(served, &targetpb.Served{Name: name, Revision: e.revision, Running: e.ending || e.bound > 0, Failure: e.failure})
	}
	for name, d := range a.want {
		if a.exports[name] == nil && d.err != nil {
			served = append(served, &targetpb.Served{Name: name, Revision: d.revision, Failure: d.err.Error()})
		}
	}
	a.mu.Unlock()
	slices.SortFunc(served, func(x, y *targetpb.Served) int { return strings.Compare(x.Name, y.Name) })
	for _, s := range served {
		for _, x := range a.server.Sessions(s.Name) {
			s.Sessions = append(s.Sessions, sessionOf(x))
		}
	}
	return served
}

func sessionOf(x iscsi.SessionInfo) *targetpb.Session {
	return &targetpb.Session{Initiator: x.Initiator, Address: x.Address, SinceUnix: x.Since.Unix(), Account: x.Account, Portal: x.Portal, Isid: x.ISID[:]}
}

// List implements iscsi.Targets.
func (a *Agent) List(context.Context) (list []iscsi.TargetInfo, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.exports {
		if !e.ending {
			list = append(list, e.info)
		}
	}
	slices.SortFunc(list, func(x, y iscsi.TargetInfo) int { return strings.Compare(x.Name, y.Name) })
	return list, nil
}

// Lookup implements iscsi.Targets.
func (a *Agent) Lookup(_ context.Context, name string) (iscsi.TargetInfo, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if e := a.exports[strings.ToLower(name)]; e != nil && !e.ending {
		return e.info, nil
	}
	return iscsi.TargetInfo{}, fmt.Errorf("target %s: %w", name, block.ErrNotFound)
}

// SetStates implements iscsi.Targets: the metadata servers keep the states, and nothing else of the target changes by it.
func (a *Agent) SetStates(ctx context.Context, name string, states map[uint16]scsi.AccessState) error {
	info, err := a.Lookup(ctx, name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTime)
	defer cancel()
	reply, err := a.cfg.Registry.SetTarget(ctx, &targetpb.SetTargetRequest{Name: info.Name, Groups: groupsWith(&info, states)})
	if err != nil {
		return fmt.Errorf("target %s: %w", name, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.adopted++
	if e := a.exports[info.Name]; e != nil && !e.ending {
		d := *e.description
		d.info.Groups = groupsOf(reply)
		e.description = &d
		a.want[info.Name] = &d
	}
	return nil
}

// groupsWith are a target's port groups with other states for some.
func groupsWith(info *iscsi.TargetInfo, states map[uint16]scsi.AccessState) *targetpb.GroupList {
	list := &targetpb.GroupList{}
	for _, g := range info.PortGroups() {
		if s, changes := states[g.Tag]; changes {
			g.State = s
		}
		list.Groups = append(list.Groups, &targetpb.Group{Id: uint32(g.Tag), State: uint32(g.State), Preferred: g.Preferred})
	}
	return list
}
