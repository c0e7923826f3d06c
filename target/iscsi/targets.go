package iscsi

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"

	"pstorage/blockstore/block"
	"pstorage/target/scsi"
)

// Targets says what is exported, how and to whom. All methods may be called from any goroutine. What changes there takes effect
// with Server.Changed; who is to log in again, and who asks which targets there are, sees it at once.
type Targets interface {
	// List returns all targets of this portal.
	List(ctx context.Context) ([]TargetInfo, error)
	// Lookup returns the target of a name, which is as the initiator wrote it; block.ErrNotFound where there is none.
	Lookup(ctx context.Context, name string) (TargetInfo, error)
	// SetStates changes the states of a target's port groups and returns when that is durable.
	SetStates(ctx context.Context, name string, states map[uint16]scsi.AccessState) error
}

// TargetInfo describes a target. Its slices are not changed once it was returned.
type TargetInfo struct {
	Name string // iSCSI name
	LUNs []LUN
	// Initiators are the names of those that may log in; none: all may.
	Initiators []string
	// Accounts are those that initiators prove to have, with CHAP; none: there is no authentication.
	Accounts []Account
	// Mutual is what the target proves itself with to initiators that ask for it. Its secret is none of Accounts'.
	Mutual *Account
	// Portals are the addresses that the target is served on; none: all the server's, in group 1.
	Portals []Portal
	// Groups are the states of the portals' groups; one that is not named is active and optimized.
	Groups []scsi.PortGroup
}

// LUN is a logical unit of a target. Its size is the volume's, also when that grows.
type LUN struct {
	Number    int    // 0 to 16383
	Volume    string // in the catalog
	BlockSize int    // 512 (also if 0) or 4096
	// PhysicalBlock is what initiators are told to align to: 512 or 4096 bytes; 0: BlockSize.
	PhysicalBlock int
	ReadOnly      bool
	// Removable: the medium can be ejected. Hypervisors take such a disk for a floppy: only for tests.
	Removable bool
}

// Portal is an address of a target, with the target port group it is in.
type Portal struct {
	Address string // IP:PORT, or IP for any port
	Group   uint16 // 0: 1
}

// Account is a name with its secret.
type Account struct {
	User   string
	Secret Secret
}

const (
	maxLUN = 1<<14 - 1
	// minSecret and maxSecret: 96 bits at least (RFC 7143, 12.1.3), one length byte of CHAP at most.
	minSecret = 12
	maxSecret = 255
)

// Validate says what is wrong with a target.
func (t *TargetInfo) Validate() error {
	if !validName(t.Name) {
		return fmt.Errorf("target name %q: %w", t.Name, ErrInvalid)
	}
	seen := map[int]bool{}
	for _, l := range t.LUNs {
		switch {
		case l.Number < 0 || l.Number > maxLUN:
			return fmt.Errorf("%s: LUN %d is not from 0 to %d: %w", t.Name, l.Number, maxLUN, ErrInvalid)
		case seen[l.Number]:
			return fmt.Errorf("%s: LUN %d is there twice: %w", t.Name, l.Number, ErrInvalid)
		case l.BlockSize != 0 && !scsi.ValidBlockSize(l.BlockSize):
			return fmt.Errorf("%s: LUN %d: blocks of %d bytes, neither 512 nor 4096: %w", t.Name, l.Number, l.BlockSize, ErrInvalid)
		case l.PhysicalBlock != 0 && !scsi.ValidBlockSize(l.PhysicalBlock):
			return fmt.Errorf("%s: LUN %d: physical blocks of %d bytes, neither 512 nor 4096: %w", t.Name, l.Number, l.PhysicalBlock, ErrInvalid)
		}
		seen[l.Number] = true
	}
	for _, p := range t.Portals {
		if net.ParseIP(p.host()) == nil {
			return fmt.Errorf("%s: portal %q: %w", t.Name, p.Address, ErrInvalid)
		}
	}
	return t.validateAccounts()
}

func (t *TargetInfo) validateAccounts() error {
	all := t.Accounts
	if t.Mutual != nil {
		all = append(slices.Clone(all), *t.Mutual)
	}
	for _, a := range all {
		if a.User == "" || len(a.User) > maxSecret {
			return fmt.Errorf("%s: account name of %d bytes: %w", t.Name, len(a.User), ErrInvalid)
		}
		if n := len(a.Secret.bytes); n < minSecret || n > maxSecret {
			return fmt.Errorf("%s: the secret of account %s has %d bytes, not %d to %d: %w", t.Name, a.User, n, minSecret, maxSecret, ErrInvalid)
		}
	}
	for _, a := range t.Accounts {
		if t.Mutual != nil && a.Secret.equal(t.Mutual.Secret) {
			return fmt.Errorf("%s: the target proves itself with the secret of account %s: %w", t.Name, a.User, ErrInvalid)
		}
	}
	return nil
}

// allows reports whether an initiator of a name may log in.
func (t *TargetInfo) allows(initiator string) bool {
	return len(t.Initiators) == 0 || slices.ContainsFunc(t.Initiators, func(n string) bool { return strings.EqualFold(n, initiator) })
}

// account returns the secret of a user.
func (t *TargetInfo) account(user string) (Secret, bool) {
	for _, a := range t.Accounts {
		if a.User == user {
			return a.Secret, true
		}
	}
	return Secret{}, false
}

func (p Portal) host() string {
	if host, _, err := net.SplitHostPort(p.Address); err == nil {
		return host
	}
	return p.Address
}

func (p Portal) tag() uint16 { return max(p.Group, 1) }

// at reports whether the portal is where a connection came to.
func (p Portal) at(local string) bool {
	if p.Address == local {
		return true
	}
	host, _, err := net.SplitHostPort(local)
	return err == nil && p.Address == host
}

// portal returns the group of the portal that a connection came to; ok is false where the target is not served there.
func (t *TargetInfo) portal(local net.Addr) (tag uint16, ok bool) {
	if len(t.Portals) == 0 {
		return 1, true
	}
	for _, p := range t.Portals {
		if p.at(local.String()) {
			return p.tag(), true
		}
	}
	return 0, false
}

// PortGroups returns the port groups with their states, sorted.
func (t *TargetInfo) PortGroups() (list []scsi.PortGroup) {
	tags := []uint16{1}
	if len(t.Portals) > 0 {
		tags = tags[:0]
	}
	for _, p := range t.Portals {
		tags = append(tags, p.tag())
	}
	slices.Sort(tags)
	for _, tag := range slices.Compact(tags) {
		g := scsi.PortGroup{Tag: tag}
		if i := slices.IndexFunc(t.Groups, func(g scsi.PortGroup) bool { return g.Tag == tag }); i >= 0 {
			g = t.Groups[i]
		}
		list = append(list, g)
	}
	return list
}

// lunIDs are the numbers of the LUNs in the eight-byte form, sorted.
func (t *TargetInfo) lunIDs() []uint64 {
	ids := make([]uint64, 0, len(t.LUNs))
	for _, l := range t.LUNs {
		ids = append(ids, lunID(l.Number))
	}
	slices.Sort(ids)
	return ids
}

// volumeTargets is a target for each volume of a catalog, named after it, with the volume as LUN 1, which is like another.
type volumeTargets struct {
	catalog block.Catalog
	prefix  string
	like    LUN
}

// theLUN is the LUN of a volume that is its own target.
const theLUN = 1

func (v *volumeTargets) info(volume string) TargetInfo {
	l := v.like
	l.Number, l.Volume = theLUN, volume
	return TargetInfo{Name: v.prefix + volume, LUNs: []LUN{l}}
}

// List implements Targets.
func (v *volumeTargets) List(ctx context.Context) ([]TargetInfo, error) {
	volumes, err := v.catalog.List(ctx)
	list := make([]TargetInfo, 0, len(volumes))
	for _, x := range volumes {
		list = append(list, v.info(x.Name))
	}
	return list, err
}

// Lookup implements Targets. Whether there is such a volume turns out when it is opened. The prefix is compared as iSCSI names
// are, the rest as volumes' are.
func (v *volumeTargets) Lookup(_ context.Context, name string) (TargetInfo, error) {
	n := len(v.prefix)
	if len(name) <= n || !strings.EqualFold(name[:n], v.prefix) {
		return TargetInfo{}, block.ErrNotFound
	}
	return v.info(name[n:]), nil
}

// SetStates implements Targets.
func (v *volumeTargets) SetStates(context.Context, string, map[uint16]scsi.AccessState) error {
	return errors.New("a volume's own target has one port group, whose state does not change")
}

// MemoryTargets keeps targets as long as the process lives.
type MemoryTargets struct {
	mu   sync.Mutex
	list []TargetInfo // sorted by name
}

// NewMemoryTargets returns a registry with the targets given.
func NewMemoryTargets(targets ...TargetInfo) (*MemoryTargets, error) {
	m := &MemoryTargets{}
	for _, t := range targets {
		if err := m.Put(t); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *MemoryTargets) find(name string) (int, bool) {
	return slices.BinarySearchFunc(m.list, strings.ToLower(name), func(t TargetInfo, name string) int { return strings.Compare(t.Name, name) })
}

// Put adds or replaces a target. Server.Changed has to follow where it is served.
func (m *MemoryTargets) Put(t TargetInfo) error {
	if err := t.Validate(); err != nil {
		return err
	}
	t.Name = strings.ToLower(t.Name)
	m.mu.Lock()
	defer m.mu.Unlock()
	i, found := m.find(t.Name)
	m.list = slices.Clone(m.list)
	if found {
		m.list[i] = t
	} else {
		m.list = slices.Insert(m.list, i, t)
	}
	return nil
}

// Remove takes a target out. Server.Changed has to follow where it is served.
func (m *MemoryTargets) Remove(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i, found := m.find(name); found {
		m.list = slices.Delete(slices.Clone(m.list), i, i+1)
	}
}

// List implements Targets.
func (m *MemoryTargets) List(context.Context) ([]TargetInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.list, nil
}

// Lookup implements Targets.
func (m *MemoryTargets) Lookup(_ context.Context, name string) (TargetInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i, found := m.find(name); found {
		return m.list[i], nil
	}
	return TargetInfo{}, fmt.Errorf("target %s: %w", name, block.ErrNotFound)
}

// SetStates implements Targets.
func (m *MemoryTargets) SetStates(ctx context.Context, name string, states map[uint16]scsi.AccessState) error {
	t, err := m.Lookup(ctx, name)
	if err != nil {
		return err
	}
	t.Groups = t.PortGroups()
	for i := range t.Groups {
		if s, ok := states[t.Groups[i].Tag]; ok {
			t.Groups[i].State = s
		}
	}
	return m.Put(t)
}
