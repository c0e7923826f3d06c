package targets

import (
	"context"
	"crypto/subtle"
	"fmt"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/leader"
	"pstorage/meta/targetpb"
)

const (
	// minSecret and maxSecret: 96 bits at least (RFC 7143, 12.1.3), one length byte of CHAP at most.
	minSecret = 12
	maxSecret = 255
)

// CreateAccount makes a CHAP account.
func (s *Service) CreateAccount(ctx context.Context, in *targetpb.AccountRequest) (*targetpb.Account, error) {
	return s.setAccount(ctx, in, true)
}

// SetAccount gives an account another secret.
func (s *Service) SetAccount(ctx context.Context, in *targetpb.AccountRequest) (*targetpb.Account, error) {
	return s.setAccount(ctx, in, false)
}

func (s *Service) setAccount(ctx context.Context, in *targetpb.AccountRequest, create bool) (*targetpb.Account, error) {
	sealed, err := s.sealFor(in)
	if err != nil {
		return nil, leader.Status(err)
	}
	_, err = s.propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_SetAccount{SetAccount: &fsmpb.SetAccount{
		User: in.User, Sealed: sealed, Changed: time.Now().Unix(), Create: create}}})
	if err != nil {
		return nil, leader.Status(err)
	}
	list, err := s.accounts(in.User)
	if err != nil {
		return nil, leader.Status(err)
	}
	return list[0], nil
}

// sealFor checks a secret, and seals it.
func (s *Service) sealFor(in *targetpb.AccountRequest) ([]byte, error) {
	if n := len(in.Secret); n < minSecret || n > maxSecret {
		return nil, invalid("account %.60q: a secret of %d bytes: %d to %d", in.User, n, minSecret, maxSecret)
	}
	key, err := s.leader.Key()
	if err != nil {
		return nil, err
	}
	if err := s.distinct(key, in.User, in.Secret); err != nil {
		return nil, err
	}
	return seal(key, in.User, in.Secret)
}

// distinct makes sure that no target would prove itself with the same secret that initiators prove to have: it would tell them the answer
// (RFC 7143, 9.2.1).
func (s *Service) distinct(key []byte, user string, secret []byte) error {
	return s.leader.View(func(v *fsm.View) error {
		for _, t := range v.Targets() {
			other := ""
			switch {
			case t.Mutual == "":
			case t.Account == user:
				other = t.Mutual
			case t.Mutual == user:
				other = t.Account
			}
			if err := differs(v, key, other, secret, t.Name); err != nil {
				return err
			}
		}
		return nil
	})
}

// differs compares a secret with an account's. One that cannot be opened is no reason to refuse another.
func differs(v *fsm.View, key []byte, account string, secret []byte, target string) error {
	a, err := v.Account(account)
	if account == "" || err != nil {
		return nil
	}
	if have, err := open(key, a.User, a.Sealed); err == nil && subtle.ConstantTimeCompare(have, secret) == 1 {
		return invalid("target %s: account %s, its own or the initiators', has the same secret", target, account)
	}
	return nil
}

// checkSecrets compares the secrets of a target's two accounts.
func (s *Service) checkSecrets(account, mutual string) error {
	if account == "" || mutual == "" {
		return nil
	}
	key, err := s.leader.Key()
	if err != nil {
		return err
	}
	return s.leader.View(func(v *fsm.View) error {
		a, err := v.Account(account)
		if err != nil {
			return err
		}
		secret, err := open(key, a.User, a.Sealed)
		if err != nil {
			return fmt.Errorf("account %s: %w", account, err)
		}
		return differs(v, key, mutual, secret, "with these")
	})
}

// DeleteAccount forgets an account that no target uses.
func (s *Service) DeleteAccount(ctx context.Context, in *targetpb.DeleteAccountRequest) (*targetpb.DeleteAccountReply, error) {
	_, err := s.propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_DeleteAccount{DeleteAccount: &fsmpb.DeleteAccount{User: in.User}}})
	if err != nil {
		return nil, leader.Status(err)
	}
	return &targetpb.DeleteAccountReply{}, nil
}

// ListAccounts describes one account or all, with the targets that use them, and without what is secret.
func (s *Service) ListAccounts(_ context.Context, in *targetpb.ListAccountsRequest) (*targetpb.ListAccountsReply, error) {
	list, err := s.accounts(in.User)
	if err != nil {
		return nil, leader.Status(err)
	}
	return &targetpb.ListAccountsReply{Accounts: list}, nil
}

func (s *Service) accounts(user string) (out []*targetpb.Account, err error) {
	err = s.leader.View(func(v *fsm.View) error {
		list := v.Accounts()
		if user != "" {
			one, err := v.Account(user)
			if err != nil {
				return err
			}
			list = []*fsmpb.Account{one}
		}
		all := v.Targets()
		for _, a := range list {
			described := &targetpb.Account{User: a.User, ChangedUnix: a.Changed}
			for _, t := range all {
				if t.Account == a.User || t.Mutual == a.User {
					described.Targets = append(described.Targets, t.Name)
				}
			}
			out = append(out, described)
		}
		return nil
	})
	return out, err
}
