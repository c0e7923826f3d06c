// Package targets is the registry of iSCSI targets, as the leading metadata server answers for it: what is exported, by which node, to whom.
//
// # Format of a sealed secret
//
//	0    1  version, 1
//	1   12  nonce
//	13      AES-256-GCM of the secret under the cluster's key; the account's name is authenticated with it
//
// # DESIGN
//
// What has to last is in the state machine (fsm/targets.go, luns.go, accounts.go), and changes by one entry of the log each. Invariants here:
//
//   - Everything rests on the leader of one term (package leader): what was judged on the revision that was read holds only if the target still has it.
//   - A change that is so already is done, whatever revision it names: a client that has lost the answer asks again and gets it.
//   - What nodes say (what they serve, who is connected) is memory of this leader alone. A node that has not been heard from since this leader began is
//     unknown for silentAfter: what depends on it has to wait until then. After that it is silent, and so is one that stops to Sync.
//   - A LUN's volume is forgotten only when nobody's lease on it is live, or when the lease is that of the node which serves its target, and
//     no initiator is connected there or the administrator has forced it. The lease of anybody else is never overridden: it runs out by itself.
//   - Secrets are in the answers to Sync, for the accounts of the node's own targets, and nowhere else in the clear.
//
// Revisions in answers to Sync are digests of what was answered: the same on every leader, whatever happened in between.
//
// Goroutines: those of gRPC's handlers. Locks: Service.mu guards the nodes and the channel that tells of changes; the state machine is not read under it. Nothing else is asked for
// while the state machine is read.
package targets

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/leader"
	"pstorage/meta/targetpb"
)

// changeTries is how often a change that names no revision is made again when the target has changed meanwhile.
const changeTries = 8

// Leader is the leading metadata server.
type Leader interface {
	View(func(*fsm.View) error) error
	Propose(ctx context.Context, c *fsmpb.Command) (any, error)
	Verify(ctx context.Context) error
	Key() ([]byte, error)
	Removing(f *fsm.File, givesWay func(*fsmpb.Holder) bool) (end func(gone bool), err error)
	Done() <-chan struct{}
}

// Service answers for the registry as long as its leader leads.
type Service struct {
	targetpb.UnimplementedTargetsServer
	leader Leader
	log    *slog.Logger
	began  time.Time

	mu      sync.Mutex
	changed chan struct{} // closed, and replaced, with every change of the registry
	nodes   map[string]*node
}

// New returns the service of a leader.
func New(l Leader, log *slog.Logger) *Service {
	return &Service{leader: l, log: log, began: time.Now(), changed: make(chan struct{}), nodes: map[string]*node{}}
}

// propose commits a command and wakes who waits for changes.
func (s *Service) propose(ctx context.Context, c *fsmpb.Command) (any, error) {
	r, err := s.leader.Propose(ctx, c)
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
	return r, err
}

// current is a target as it was read, with its LUNs' volumes.
type current struct {
	*fsmpb.Target
	volumes map[uint64]*fsm.File
}

// read returns a target by its name as it is kept.
func (s *Service) read(name string) (*current, error) {
	out := &current{volumes: map[uint64]*fsm.File{}}
	err := s.leader.View(func(v *fsm.View) (err error) {
		if out.Target, err = v.Target(name); err != nil {
			return err
		}
		for _, l := range out.Luns {
			if out.volumes[l.File], err = v.File(l.File); err != nil {
				return err
			}
		}
		return nil
	})
	return out, err
}

// commandFor makes the command that changes a target, nil if it is already what was asked for.
type commandFor func(now *current) (*fsmpb.Command, error)

// change reads a target, makes a command of it, proposes that, and describes what has come of it.
func (s *Service) change(ctx context.Context, name string, revision uint64, command commandFor) (*targetpb.Target, error) {
	name, err := fsm.TargetName(name)
	if err == nil {
		err = s.commit(ctx, name, revision, command)
	}
	if err != nil {
		return nil, leader.Status(err)
	}
	return s.one(name)
}

// commit makes and proposes the command; again, when it names no revision and the target was changed meanwhile, or a volume opened.
func (s *Service) commit(ctx context.Context, name string, revision uint64, command commandFor) (err error) {
	for range changeTries {
		err = s.commitOnce(ctx, name, revision, command)
		if !errors.Is(err, fsm.ErrConflict) && (revision != 0 || !errors.Is(err, fsm.ErrRevision)) {
			break
		}
	}
	return err
}

func (s *Service) commitOnce(ctx context.Context, name string, revision uint64, command commandFor) error {
	now, err := s.read(name)
	if err != nil {
		return err
	}
	c, err := command(now)
	if err != nil || c == nil {
		return err
	}
	if err := now.at(revision); err != nil {
		return err
	}
	_, err = s.propose(ctx, c)
	return err
}

// at refuses another revision than the target has; 0 is any.
func (now *current) at(revision uint64) error {
	if revision == 0 || revision == now.Revision {
		return nil
	}
	return fmt.Errorf("target %s: revision %d, now %d: %w", now.Name, revision, now.Revision, fsm.ErrRevision)
}

// one describes one target.
func (s *Service) one(name string) (out *targetpb.Target, err error) {
	err = s.leader.View(func(v *fsm.View) error {
		t, err := v.Target(name)
		if err == nil {
			out = s.describe(v, t, true)
		}
		return err
	})
	return out, leader.Status(err)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), fsm.ErrInvalid)
}

// refused is what cannot be done now, and will not be by waiting.
func refused(format string, args ...any) error {
	return status.Errorf(codes.FailedPrecondition, format, args...)
}

func notYet(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), leader.ErrNotYet)
}
