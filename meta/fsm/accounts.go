package fsm

import (
	"bytes"
	"fmt"
	"slices"
	"unicode/utf8"

	"pstorage/meta/fsm/fsmpb"
)

// Limits of accounts and of what is reserved.
const (
	maxAccounts = 1024
	maxUser     = 255
	maxSealed   = 512
	// maxReservations is the most bytes of what is reserved of one volume.
	maxReservations = 512 << 10
	// KeyMarkSize is the size of the mark that the key of the cluster is known by.
	KeyMarkSize = 16
)

// account returns an account, nil if there is none.
func (tx *txn) account(user string) *fsmpb.Account {
	a := &fsmpb.Account{}
	if !tx.getMessage(tx.accounts, []byte(user), a) {
		return nil
	}
	return a
}

// setAccount makes an account, or gives it another secret, which was sealed before it came here.
func (tx *txn) setAccount(c *fsmpb.SetAccount) (*fsmpb.Account, error) {
	if err := checkAccount(c); err != nil {
		return nil, err
	}
	switch have := tx.account(c.User); {
	case c.Create && have != nil:
		return nil, fmt.Errorf("account %s: %w", c.User, ErrExists)
	case !c.Create && have == nil:
		return nil, fmt.Errorf("account %s: %w", c.User, ErrUnknownAccount)
	}
	if n := len(keysWith(tx.accounts, nil)); c.Create && n >= maxAccounts {
		return nil, fmt.Errorf("%d accounts, no more than %d: %w", n, maxAccounts, ErrInvalid)
	}
	a := &fsmpb.Account{User: c.User, Sealed: c.Sealed, Changed: c.Changed, Revision: tx.count(lastTargetKey)}
	tx.putMessage(tx.accounts, []byte(c.User), a)
	return a, nil
}

func checkAccount(c *fsmpb.SetAccount) error {
	bad := c.User == "" || len(c.User) > maxUser || !utf8.ValidString(c.User)
	for _, r := range c.User {
		bad = bad || r < ' ' || r == 0x7f
	}
	if bad || len(c.Sealed) == 0 || len(c.Sealed) > maxSealed {
		return fmt.Errorf("account %q: a name has 1 to %d bytes that can be printed: %w", shorten(c.User), maxUser, ErrInvalid)
	}
	return nil
}

// deleteAccount forgets an account that no target uses.
func (tx *txn) deleteAccount(c *fsmpb.DeleteAccount) error {
	if c.User == "" || tx.account(c.User) == nil {
		return fmt.Errorf("account %s: %w", shorten(c.User), ErrUnknownAccount)
	}
	for _, t := range tx.targetList() {
		if t.Account == c.User || t.Mutual == c.User {
			return fmt.Errorf("account %s is used by target %s: %w", c.User, t.Name, ErrInUse)
		}
	}
	tx.delete(tx.accounts, []byte(c.User))
	return nil
}

func (tx *txn) reserved(file uint64) *fsmpb.Reservations {
	r := &fsmpb.Reservations{}
	tx.getMessage(tx.reservations, nodeKey(file), r)
	return r
}

// saveReservations replaces what is reserved of a volume, for its holder. To save what was saved last, in the same place, is to repeat
// what was done: its answer was lost.
func (tx *txn) saveReservations(c *fsmpb.SaveReservations) (*fsmpb.Reservations, error) {
	if len(c.State) > maxReservations {
		return nil, fmt.Errorf("reservations of file %d: %d bytes, at most %d: %w", c.File, len(c.State), maxReservations, ErrInvalid)
	}
	if _, err := tx.held(c.File, c.Epoch, c.Client); err != nil {
		return nil, err
	}
	have := tx.reserved(c.File)
	switch {
	case have.Revision == c.Revision+1 && bytes.Equal(have.State, c.State):
		return have, nil
	case have.Revision != c.Revision:
		return nil, fmt.Errorf("reservations of file %d: revision %d, now %d: %w", c.File, c.Revision, have.Revision, ErrRevision)
	}
	next := &fsmpb.Reservations{Revision: c.Revision + 1, State: c.State}
	tx.putMessage(tx.reservations, nodeKey(c.File), next)
	return next, nil
}

// setKey notes which key accounts are sealed with, and returns its mark: the one noted first.
func (tx *txn) setKey(c *fsmpb.SetKey) ([]byte, error) {
	if len(c.Mark) != KeyMarkSize {
		return nil, fmt.Errorf("a mark of %d bytes: %w", len(c.Mark), ErrInvalid)
	}
	if have := tx.cluster.Get(keyKey); have != nil {
		return slices.Clone(have), nil
	}
	tx.put(tx.cluster, keyKey, c.Mark)
	return slices.Clone(c.Mark), nil
}
