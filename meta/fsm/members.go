package fsm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"pstorage/meta/fsm/fsmpb"
)

const (
	// MaxMembers is the most metadata servers.
	MaxMembers = 16
	// maxNonce bounds what a join is known by.
	maxNonce = 64
)

// MemberNumber is the number in a metadata server's Raft id, 0 if it is none.
func MemberNumber(id string) uint64 {
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != id {
		return 0
	}
	return n
}

func memberKey(n uint64) []byte { return []byte(strconv.FormatUint(n, 10)) }

// MetadataServers returns the metadata servers, by number.
func (v *View) MetadataServers() []*fsmpb.Member { return v.memberList() }

func (tx *txn) memberList() (out []*fsmpb.Member) {
	_ = tx.members.ForEach(func(k, _ []byte) error {
		m := &fsmpb.Member{}
		if tx.getMessage(tx.members, k, m) {
			out = append(out, m)
		}
		return nil
	})
	slices.SortFunc(out, func(a, b *fsmpb.Member) int { return int(int64(MemberNumber(a.Id)) - int64(MemberNumber(b.Id))) })
	return out
}

// Member returns a metadata server. ErrRemoved: it was one; ErrUnknownMember: nobody has had the number yet.
func (v *View) Member(n uint64) (*fsmpb.Member, error) { return v.member(n) }

func (tx *txn) member(n uint64) (*fsmpb.Member, error) {
	m := &fsmpb.Member{}
	switch {
	case tx.getMessage(tx.members, memberKey(n), m):
		return m, nil
	case n != 0 && n <= number(tx.cluster.Get(lastMemberKey)):
		return nil, fmt.Errorf("metadata server %d: %w", n, ErrRemoved)
	}
	return nil, fmt.Errorf("metadata server %d: %w", n, ErrUnknownMember)
}

// Password returns what a cluster's password is compared with; nil if it has none.
func (v *View) Password() *fsmpb.Init {
	p := &fsmpb.Init{}
	if !v.getMessage(v.cluster, passwordKey, p) || len(p.PasswordHash) == 0 {
		return nil
	}
	return p
}

// Recoveries counts how often the cluster went on with one metadata server although a majority was lost.
func (v *View) Recoveries() uint64 { return number(v.cluster.Get(recoveredKey)) }

// setMember notes where a metadata server is. The cluster's first one enters itself by it; nobody comes back by it.
func (tx *txn) setMember(c *fsmpb.SetMember) error {
	n := MemberNumber(c.Id)
	if n == 0 || max(len(c.Address), len(c.ClientAddress), len(c.Version)) > MaxHost {
		return fmt.Errorf("metadata server %q: %w", shorten(c.Id), ErrInvalid)
	}
	have, err := tx.member(n)
	if errors.Is(err, ErrRemoved) {
		return err
	}
	if n > number(tx.cluster.Get(lastMemberKey)) {
		tx.put(tx.cluster, lastMemberKey, nodeKey(n))
	}
	tx.putMessage(tx.members, memberKey(n),
		&fsmpb.Member{Id: c.Id, Address: c.Address, ClientAddress: c.ClientAddress, Version: c.Version, Nonce: have.GetNonce(), Level: c.Level})
	return nil
}

// joinMember numbers a new metadata server. A number is never given twice; two servers never have one address.
func (tx *txn) joinMember(c *fsmpb.JoinMember) (*fsmpb.Member, error) {
	if c.Address == "" || max(len(c.Address), len(c.ClientAddress), len(c.Version)) > MaxHost || len(c.Nonce) == 0 || len(c.Nonce) > maxNonce {
		return nil, fmt.Errorf("metadata server at %q: %w", shorten(c.Address), ErrInvalid)
	}
	if have := tx.level(); max(FirstLevel, c.Level) < have {
		return nil, fmt.Errorf("metadata server at %q knows level %d, the cluster has %d: %w", shorten(c.Address), c.Level, have, ErrNewer)
	}
	all := tx.memberList()
	for _, m := range all {
		switch n := MemberNumber(m.Id); {
		case bytes.Equal(m.Nonce, c.Nonce):
			return m, nil
		case m.Address == c.Address && n != c.Replaces:
			return nil, fmt.Errorf("metadata server %d has the address %s: %w", n, m.Address, ErrExists)
		}
	}
	if len(all) >= MaxMembers {
		return nil, fmt.Errorf("%d metadata servers, no more than %d: %w", len(all), MaxMembers, ErrInvalid)
	}
	if c.Replaces != 0 {
		tx.delete(tx.members, memberKey(c.Replaces))
	}
	n := number(tx.cluster.Get(lastMemberKey))
	for _, m := range all { // the first may have been entered before numbers were counted
		n = max(n, MemberNumber(m.Id))
	}
	n++
	tx.put(tx.cluster, lastMemberKey, nodeKey(n))
	m := &fsmpb.Member{Id: string(memberKey(n)), Address: c.Address, ClientAddress: c.ClientAddress, Version: c.Version, Nonce: c.Nonce, Level: c.Level}
	tx.putMessage(tx.members, memberKey(n), m)
	return m, nil
}

func (tx *txn) removeMember(c *fsmpb.RemoveMember) error {
	if _, err := tx.member(c.Id); err != nil {
		return err
	}
	if len(tx.memberList()) == 1 {
		return fmt.Errorf("metadata server %d: %w", c.Id, ErrLastMember)
	}
	tx.delete(tx.members, memberKey(c.Id))
	return nil
}

// recovered takes all metadata servers but one out. Whether that one has the key that accounts are sealed with, it says anew when it leads.
func (tx *txn) recovered(c *fsmpb.Recovered) error {
	if _, err := tx.member(c.Id); err != nil {
		return err
	}
	for _, m := range tx.memberList() {
		if n := MemberNumber(m.Id); n != c.Id {
			tx.delete(tx.members, memberKey(n))
		}
	}
	tx.delete(tx.cluster, keyKey)
	tx.count(recoveredKey)
	return nil
}
