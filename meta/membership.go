package meta

import (
	"bytes"
	"context"
	"crypto/pbkdf2"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/leader"
	"pstorage/meta/metapb"
)

const (
	// presentEvery is how often a server that does not lead tells the leader of itself; joiningEvery, while it has no vote.
	presentEvery = time.Second
	joiningEvery = 200 * time.Millisecond
	// upFor is how long after that it counts as up.
	upFor = 3 * time.Second
	// caughtUpRounds: so many times in a row a server must have had all that was committed one round before, to be given a vote.
	caughtUpRounds = 2
)

// membership is the leader's knowledge of the metadata servers, in one term. Who is a member is in the state machine; Raft's configuration is
// made to follow that (reconcile.go), by one goroutine. What is heard from members is memory of this leader alone.
type membership struct {
	t     *term
	alive context.Context // until the term ends
	began time.Time
	kick  chan struct{} // there may be something to reconcile

	mu    sync.Mutex
	heard map[uint64]*heard
}

// heard is what a server said of itself.
type heard struct {
	at     time.Time
	behind uint64 // entries it lacked
	goal   uint64 // what was committed then
	rounds int    // how often in a row it had the goal of the round before
	load   *metapb.MdsLoad
}

func newMembership(alive context.Context, t *term) *membership {
	return &membership{t: t, alive: alive, began: time.Now(), kick: make(chan struct{}, 1), heard: map[uint64]*heard{}}
}

func (m *membership) kicked() {
	select {
	case m.kick <- struct{}{}:
	default:
	}
}

// present takes what a server says of itself, and tells it whether it is still a member.
func (m *membership) present(ctx context.Context, in *metapb.PresentMdsRequest) (*metapb.PresentMdsReply, error) {
	var have *fsmpb.Member
	err := m.t.View(func(v *fsm.View) (err error) {
		if name, id := v.Cluster(); !bytes.Equal(id, in.ClusterId) {
			return fmt.Errorf("this is the cluster %s (%x), not the one of metadata server %d (%x): %w", name, id, in.Id, in.ClusterId, fsm.ErrInvalid)
		}
		have, err = v.Member(in.Id)
		return err
	})
	switch {
	case errors.Is(err, fsm.ErrRemoved):
		return &metapb.PresentMdsReply{Removed: true}, nil
	case err != nil:
		return nil, leader.Status(err)
	}
	if have.ClientAddress != in.ClientAddress || have.Version != in.Version || have.Level != in.Level {
		_, err := m.t.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_SetMember{SetMember: &fsmpb.SetMember{
			Id: have.Id, Address: have.Address, ClientAddress: in.ClientAddress, Version: in.Version, Level: in.Level}}})
		if err != nil {
			return nil, leader.Status(err)
		}
	}
	m.note(in.Id, in.Applied, in.Load)
	m.kicked()
	out := &metapb.PresentMdsReply{}
	m.t.exchangeKey(in, out)
	return out, nil
}

func (m *membership) note(id, applied uint64, load *metapb.MdsLoad) {
	committed := m.t.node.raft.CommitIndex()
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.heard[id]
	if h == nil {
		h = &heard{goal: committed}
		m.heard[id] = h
	}
	if h.rounds++; applied < h.goal || time.Since(h.at) > upFor {
		h.rounds = 0
	}
	h.at, h.goal, h.load = time.Now(), committed, load
	h.behind = committed - min(committed, applied)
}

// up tells whether the server was heard from lately; this server always is.
func (m *membership) up(id uint64) bool {
	if serverID(id) == m.t.node.id {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.heard[id]
	return h != nil && time.Since(h.at) <= upFor
}

func (m *membership) caughtUp(id uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.heard[id]
	return h != nil && h.rounds >= caughtUpRounds
}

// join gives a new metadata server its number. It becomes part of Raft when it has been started.
func (m *membership) join(ctx context.Context, in *metapb.JoinMdsRequest) (*metapb.JoinMdsReply, error) {
	if err := m.admissible(in); err != nil {
		return nil, err
	}
	c := &fsmpb.JoinMember{Address: in.Address, ClientAddress: in.ClientAddress, Version: in.Version, Level: in.Level, Nonce: in.Nonce, Replaces: m.neverRun(in.Address)}
	r, err := m.t.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_JoinMember{JoinMember: c}})
	if err != nil {
		return nil, leader.Status(err)
	}
	out := &metapb.JoinMdsReply{Id: fsm.MemberNumber(r.(*fsmpb.Member).Id)}
	out.Key, _ = m.t.Key() // a leader that lacks it hands it over later
	err = m.t.View(func(v *fsm.View) error {
		_, out.ClusterId = v.Cluster()
		out.ClientAddresses = clientAddresses(v)
		return nil
	})
	return out, leader.Status(err)
}

func clientAddresses(v *fsm.View) (out []string) {
	for _, member := range v.MetadataServers() {
		out = append(out, member.ClientAddress)
	}
	return out
}

// admissible checks name, password and addresses.
func (m *membership) admissible(in *metapb.JoinMdsRequest) error {
	var name string
	var password *fsmpb.Init
	err := m.t.View(func(v *fsm.View) error {
		name, _ = v.Cluster()
		password = v.Password()
		return nil
	})
	switch {
	case err != nil:
		return leader.Status(err)
	case name != in.Cluster:
		return status.Errorf(codes.InvalidArgument, "this is the cluster %s, not %s", name, in.Cluster)
	case password != nil && in.Password == "":
		return status.Errorf(codes.PermissionDenied, "the cluster %s has a password, and none was given", name)
	case password != nil && !m.t.passwords.match(in.Password, password):
		return status.Errorf(codes.PermissionDenied, "that is not the password of the cluster %s", name)
	}
	if err := checkFixed(in.Address); err != nil {
		return leader.Status(fmt.Errorf("%w: %w", err, fsm.ErrInvalid))
	}
	if err := checkFixed(m.t.config.Address); err != nil {
		return status.Errorf(codes.FailedPrecondition, "metadata server %s cannot have others beside it: %v", m.t.node.id, err)
	}
	return nil
}

// checkFixed wants an address that others can be told.
func checkFixed(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" || port == "0" {
		return fmt.Errorf("%q is no fixed address, IP:PORT", address)
	}
	return nil
}

// neverRun returns the number of a member with the address that was never started, 0 if there is none: its folder is made anew.
func (m *membership) neverRun(address string) (number uint64) {
	inRaft := map[raft.ServerID]bool{}
	for _, s := range m.t.node.servers() {
		inRaft[s.ID] = true
	}
	_ = m.t.View(func(v *fsm.View) error {
		for _, member := range v.MetadataServers() {
			if n := fsm.MemberNumber(member.Id); member.Address == address && !inRaft[raft.ServerID(member.Id)] && !m.up(n) {
				number = n
			}
		}
		return nil
	})
	return number
}

// passwords compares one password at a time: it costs much, on purpose.
type passwords struct{ mu sync.Mutex }

func (p *passwords) match(password string, want *fsmpb.Init) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	have, err := pbkdf2.Key(sha256.New, password, want.PasswordSalt, int(want.PasswordRounds), len(want.PasswordHash))
	return err == nil && subtle.ConstantTimeCompare(have, want.PasswordHash) == 1
}

// remove takes a metadata server out. It returns when Raft has let go of it.
func (m *membership) remove(ctx context.Context, in *metapb.RemoveMdsRequest) (*metapb.RemoveMdsReply, error) {
	if err := m.removable(ctx, in); err != nil {
		return nil, leader.Status(err)
	}
	if serverID(in.Id) == m.t.node.id {
		if err := m.t.node.raft.LeadershipTransfer().Error(); err != nil {
			return nil, status.Errorf(codes.Unavailable, "metadata server %d leads and cannot hand over: %v", in.Id, err)
		}
		return nil, m.t.notLeader() // the client asks the new one
	}
	_, err := m.t.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_RemoveMember{RemoveMember: &fsmpb.RemoveMember{Id: in.Id}}})
	if err != nil {
		return nil, leader.Status(err)
	}
	m.kicked()
	return &metapb.RemoveMdsReply{}, leader.Status(m.gone(ctx, in.Id))
}

// removable refuses what would leave the cluster without a majority that is up.
func (m *membership) removable(ctx context.Context, in *metapb.RemoveMdsRequest) error {
	var members int
	err := m.t.View(func(v *fsm.View) error {
		members = len(v.MetadataServers())
		_, err := v.Member(in.Id)
		return err
	})
	switch {
	case err != nil:
		return err
	case members == 1:
		return fmt.Errorf("metadata server %d: %w: the cluster would be gone", in.Id, fsm.ErrLastMember)
	case in.Force:
		return nil
	}
	left := electorate(m.probe(ctx, m.peers()), func(p peer) bool { return p.id != in.Id })
	if left.majorityUp() {
		return nil
	}
	if time.Since(m.began) < upFor {
		return status.Error(codes.Unavailable, "this leader has not heard from all metadata servers yet")
	}
	return status.Errorf(codes.FailedPrecondition,
		"without metadata server %d, %d of the %d others that vote would be up, and %d are needed: start them or remove those that are lost first (force does it all the same)",
		in.Id, left.up, left.voters, left.voters/2+1)
}

// gone waits until a server is out of Raft's configuration.
func (m *membership) gone(ctx context.Context, id uint64) error {
	for there := true; there; {
		there = false
		for _, s := range m.t.node.servers() {
			there = there || s.ID == serverID(id)
		}
		if !there {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(goneRetry):
		}
	}
	return nil
}

// goneRetry is between two looks at whether a server is gone.
const goneRetry = 20 * time.Millisecond

// list describes the metadata servers.
func (m *membership) list() (out []*metapb.Mds) {
	configured := map[raft.ServerID]raft.Server{}
	for _, s := range m.t.node.servers() {
		configured[s.ID] = s
	}
	_ = m.t.View(func(v *fsm.View) error {
		for _, member := range v.MetadataServers() {
			out = append(out, m.describe(member, configured[raft.ServerID(member.Id)]))
		}
		return nil
	})
	return out
}

func (m *membership) describe(member *fsmpb.Member, s raft.Server) *metapb.Mds {
	d := &metapb.Mds{Id: fsm.MemberNumber(member.Id), Address: member.Address, ClientAddress: member.ClientAddress, Version: member.Version}
	if raft.ServerID(member.Id) == m.t.node.id {
		d.Leader, d.State, d.Load = true, metapb.Mds_AVAIL, m.t.load.measure()
		return d
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	h := m.heard[d.Id]
	up := h != nil && time.Since(h.at) <= upFor
	switch {
	case up && s.ID != "" && s.Suffrage == raft.Voter:
		d.State = metapb.Mds_AVAIL
	case up || s.ID == "":
		d.State = metapb.Mds_JOINING
	case time.Since(m.began) > upFor:
		d.State = metapb.Mds_UNAVAIL
	}
	if up {
		d.Load, d.Behind = h.load, h.behind
	}
	return d
}
