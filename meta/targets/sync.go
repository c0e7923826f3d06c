package targets

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/leader"
	"pstorage/meta/targetpb"
)

// maxWait bounds how long Sync waits. It is well under silentAfter: a node that waits is alive.
const maxWait = 2 * time.Second

// Sync takes what a node serves, and tells what it is to serve: at once if that is another than it has, else as soon as it changes, or after the time that
// the node wants to wait.
func (s *Service) Sync(ctx context.Context, in *targetpb.SyncRequest) (*targetpb.SyncReply, error) {
	err := checkSync(in)
	if err == nil {
		err = s.note(in)
	}
	if err != nil {
		return nil, leader.Status(err)
	}
	wait := time.NewTimer(min(time.Duration(in.WaitMs)*time.Millisecond, maxWait))
	defer wait.Stop()
	out, err := s.await(ctx, in, wait.C)
	if err == nil {
		err = s.leader.Verify(ctx) // what an earlier leader has is not to be served
	}
	if err != nil {
		return nil, leader.Status(err)
	}
	return out, nil
}

// await returns what a node is to serve when that is another than it has, or the time is up.
func (s *Service) await(ctx context.Context, in *targetpb.SyncRequest, up <-chan time.Time) (*targetpb.SyncReply, error) {
	for over := false; ; {
		s.mu.Lock()
		changed := s.changed
		s.mu.Unlock()
		out, err := s.assignment(in.Host, in.Revision)
		if err != nil || out.Changed || over {
			return out, err
		}
		select {
		case <-changed:
		case <-up:
			over = true
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.leader.Done():
			return nil, leader.ErrDeposed
		}
	}
}

// assignment is what a node is to serve, if that is not what it has.
func (s *Service) assignment(host string, has uint64) (*targetpb.SyncReply, error) {
	key, keyErr := s.leader.Key()
	out := &targetpb.SyncReply{}
	err := s.leader.View(func(v *fsm.View) error {
		targets, accounts := assigned(v, host)
		out.Revision = digest(targets, accounts)
		if out.Changed = out.Revision != has; !out.Changed {
			return nil
		}
		if len(accounts) > 0 && keyErr != nil {
			return keyErr // it will come: better what the node has than targets that it cannot serve
		}
		for _, t := range targets {
			out.Targets = append(out.Targets, s.describe(v, t, false))
		}
		for _, a := range accounts {
			secret, err := open(key, a.User, a.Sealed)
			if err != nil {
				s.log.Error("a target cannot be served with its account", "user", a.User, "error", err)
				continue
			}
			out.Credentials = append(out.Credentials, &targetpb.Credential{User: a.User, Secret: secret})
		}
		return nil
	})
	return out, err
}

// assigned returns a node's targets and the accounts that they use, both by name.
func assigned(v *fsm.View, host string) (targets []*fsmpb.Target, accounts []*fsmpb.Account) {
	var users []string
	for _, t := range v.Targets() {
		if t.Host == host {
			targets = append(targets, t)
			users = append(users, t.Account, t.Mutual)
		}
	}
	slices.Sort(users)
	for _, user := range slices.Compact(users) {
		if a, err := v.Account(user); err == nil {
			accounts = append(accounts, a)
		}
	}
	return targets, accounts
}

// digest stands for what a node is told. Names have their revisions, which never come again, so equal digests are equal assignments; it is never 0,
// which is what a node has that has nothing yet.
func digest(targets []*fsmpb.Target, accounts []*fsmpb.Account) uint64 {
	h := sha256.New()
	for _, t := range targets {
		fmt.Fprintf(h, "t %q %d\n", t.Name, t.Revision)
	}
	for _, a := range accounts {
		fmt.Fprintf(h, "a %q %d\n", a.User, a.Revision)
	}
	return max(binary.BigEndian.Uint64(h.Sum(nil)), 1)
}
