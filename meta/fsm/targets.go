package fsm

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"pstorage/meta/fsm/fsmpb"
)

// Limits of targets.
const (
	MaxTargets    = 1024
	maxPortals    = 16
	maxGroup      = 1<<16 - 1
	maxInitiators = 256
	maxComment    = 1024
)

// States that a target port group can be put into (SPC-4, 5.16.2.4): active in two ways, standby, unavailable; transitioning.
const (
	maxGroupState      = 3
	transitioningState = 15
)

// target returns a target, nil if there is none.
func (tx *txn) target(name string) *fsmpb.Target {
	t := &fsmpb.Target{}
	if !tx.getMessage(tx.targets, []byte(name), t) {
		return nil
	}
	return t
}

// targetAt returns the target if it still has the revision.
func (tx *txn) targetAt(name string, revision uint64) (*fsmpb.Target, error) {
	t := tx.target(name)
	switch {
	case t == nil:
		return nil, fmt.Errorf("target %s: %w", shorten(name), ErrUnknownTarget)
	case t.Revision != revision:
		return nil, fmt.Errorf("target %s: revision %d, now %d: %w", name, revision, t.Revision, ErrRevision)
	}
	return t, nil
}

// putTarget stores it under a new revision. No target has ever had the same, nor has one that was deleted.
func (tx *txn) putTarget(t *fsmpb.Target) *fsmpb.Target {
	t.Revision = tx.count(lastTargetKey)
	tx.putMessage(tx.targets, []byte(t.Name), t)
	return t
}

func (tx *txn) targetList() (out []*fsmpb.Target) {
	for _, key := range keysWith(tx.targets, nil) {
		if t := tx.target(string(key)); t != nil {
			out = append(out, t)
		}
	}
	return out
}

func (tx *txn) createTarget(c *fsmpb.CreateTarget) (*fsmpb.Target, error) {
	t, err := tx.checkedTarget(c.Target)
	if err != nil {
		return nil, err
	}
	if tx.target(t.Name) != nil {
		return nil, fmt.Errorf("target %s: %w", t.Name, ErrExists)
	}
	if n := len(keysWith(tx.targets, nil)); n >= MaxTargets {
		return nil, fmt.Errorf("%d targets, no more than %d: %w", n, MaxTargets, ErrInvalid)
	}
	t.Luns, t.Enabled = nil, false
	return tx.putTarget(t), nil
}

func (tx *txn) setTarget(c *fsmpb.SetTarget) (*fsmpb.Target, error) {
	t, err := tx.checkedTarget(c.Target)
	if err != nil {
		return nil, err
	}
	have, err := tx.targetAt(t.Name, c.Revision)
	if err != nil {
		return nil, err
	}
	t.Luns = have.Luns
	return tx.putTarget(t), nil
}

// checkedTarget returns a target as it is kept, but for its LUNs and its revision.
func (tx *txn) checkedTarget(in *fsmpb.Target) (t *fsmpb.Target, err error) {
	if t = proto.CloneOf(in); t == nil {
		t = &fsmpb.Target{}
	}
	if t.Name, err = TargetName(t.Name); err != nil {
		return nil, err
	}
	for _, check := range []func(*fsmpb.Target) error{tx.checkPortals, checkInitiators, checkGroups, tx.checkAccounts, checkPlace} {
		if err := check(t); err != nil {
			return nil, fmt.Errorf("target %s: %w", t.Name, err)
		}
	}
	return t, nil
}

// checkPortals makes sure that a target has an address, and that no other has the same one, whatever the port: addresses move with their target.
func (tx *txn) checkPortals(t *fsmpb.Target) (err error) {
	if len(t.Portals) == 0 || len(t.Portals) > maxPortals {
		return fmt.Errorf("%d portals: 1 to %d: %w", len(t.Portals), maxPortals, ErrInvalid)
	}
	own := map[netip.Addr][]string{} // with what is served there
	for _, p := range t.Portals {
		var ip netip.Addr
		if p.Address, ip, err = portalAddress(p.Address); err != nil {
			return err
		}
		if p.Group = max(p.Group, 1); p.Group > maxGroup {
			return fmt.Errorf("portal %s: group %d: 1 to %d: %w", p.Address, p.Group, maxGroup, ErrInvalid)
		}
		if there := own[ip]; len(there) > 0 && (p.Address == ip.String() || slices.Contains(there, ip.String()) || slices.Contains(there, p.Address)) {
			return fmt.Errorf("portal %s is there twice: %w", p.Address, ErrInvalid)
		}
		own[ip] = append(own[ip], p.Address)
	}
	for _, other := range tx.targetList() {
		for _, p := range other.Portals {
			if _, ip, err := portalAddress(p.Address); err == nil && other.Name != t.Name && len(own[ip]) > 0 {
				return fmt.Errorf("address %s is of target %s: a target has addresses of its own: %w", ip, other.Name, ErrExists)
			}
		}
	}
	return nil
}

func checkInitiators(t *fsmpb.Target) (err error) {
	if len(t.Initiators) > maxInitiators {
		return fmt.Errorf("%d initiators, at most %d: %w", len(t.Initiators), maxInitiators, ErrInvalid)
	}
	for i, name := range t.Initiators {
		if t.Initiators[i], err = initiatorName(name); err != nil {
			return err
		}
	}
	slices.Sort(t.Initiators)
	t.Initiators = slices.Compact(t.Initiators)
	return nil
}

// checkGroups wants each group named once, and to have a portal.
func checkGroups(t *fsmpb.Target) error {
	slices.SortFunc(t.Groups, func(a, b *fsmpb.PortGroup) int { return cmp.Compare(a.GetId(), b.GetId()) })
	for i, g := range t.Groups {
		switch {
		case !slices.ContainsFunc(t.Portals, func(p *fsmpb.Portal) bool { return p.Group == g.Id }):
			return fmt.Errorf("group %d has no portal: %w", g.Id, ErrInvalid)
		case i > 0 && t.Groups[i-1].Id == g.Id:
			return fmt.Errorf("group %d is there twice: %w", g.Id, ErrInvalid)
		case g.State > maxGroupState && g.State != transitioningState:
			return fmt.Errorf("group %d: state %d: %w", g.Id, g.State, ErrInvalid)
		}
	}
	return nil
}

func (tx *txn) checkAccounts(t *fsmpb.Target) error {
	if t.Mutual != "" && (t.Account == "" || t.Account == t.Mutual) {
		return fmt.Errorf("it proves itself (%s) only to who has proved himself, and with another account: %w", shorten(t.Mutual), ErrInvalid)
	}
	for _, user := range []string{t.Account, t.Mutual} {
		if user != "" && tx.account(user) == nil {
			return fmt.Errorf("account %s: %w", shorten(user), ErrUnknownAccount)
		}
	}
	return nil
}

func checkPlace(t *fsmpb.Target) error {
	switch {
	case t.Enabled && t.Host == "":
		return fmt.Errorf("registered on no node, it cannot be started: %w", ErrInvalid)
	case len(t.Host) > MaxHost || !utf8.ValidString(t.Host):
		return fmt.Errorf("node %q: %w", shorten(t.Host), ErrInvalid)
	case len(t.Comment) > maxComment || !utf8.ValidString(t.Comment):
		return fmt.Errorf("a comment of %d bytes, at most %d: %w", len(t.Comment), maxComment, ErrInvalid)
	}
	return nil
}

// deleteTarget forgets a stopped target with the volumes of its LUNs (R12).
func (tx *txn) deleteTarget(c *fsmpb.DeleteTarget) error {
	t, err := tx.targetAt(c.Name, c.Revision)
	if err != nil {
		return err
	}
	if t.Enabled {
		return fmt.Errorf("target %s is started: %w", t.Name, ErrInUse)
	}
	nodes := make([]*fsmpb.Node, len(t.Luns))
	for i, l := range t.Luns {
		at := slices.IndexFunc(c.Volumes, func(v *fsmpb.VolumeEpoch) bool { return v.GetFile() == l.File })
		if at < 0 {
			return fmt.Errorf("target %s: LUN %d: %w", t.Name, l.Number, ErrConflict)
		}
		if nodes[i], err = tx.lunVolume(t, l, c.Volumes[at]); err != nil {
			return err
		}
	}
	for i, l := range t.Luns {
		tx.forgetVolume(l.File, nodes[i])
	}
	tx.forgetFolder(targetFolder(t.Name))
	tx.delete(tx.targets, []byte(t.Name))
	return nil
}

// forgetFolder forgets a directory if it is one, and empty.
func (tx *txn) forgetFolder(path string) {
	if id, n, err := tx.find(path); err == nil && n.Directory && len(keysWith(tx.names, nodeKey(id))) == 0 {
		tx.forgetNode(id, n)
	}
}
