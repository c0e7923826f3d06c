package meta

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"pstorage/meta/client"
	"pstorage/meta/fsm"
)

// reconcileEvery is how often Raft's configuration is compared with the members, if nothing happens before.
const reconcileEvery = 500 * time.Millisecond

// probeTimeout is how long a server may take to answer to count as up.
const probeTimeout = time.Second

// peer is a metadata server as the leader sees it.
type peer struct {
	id         uint64
	address    string
	clients    string // its address for clients
	self       bool
	member     bool // of the cluster, by the state machine
	removed    bool // was a member
	configured bool // in Raft's configuration
	voter      bool // there with a vote
	up         bool // heard from lately
	caughtUp   bool // has had, for some rounds, what was committed a round before
}

// votes is a count of those that vote.
type votes struct{ voters, up int }

func electorate(peers []peer, counts func(peer) bool) (v votes) {
	for _, p := range peers {
		if p.voter && counts(p) {
			v.voters++
			if p.up {
				v.up++
			}
		}
	}
	return v
}

func (v votes) majorityUp() bool { return v.up >= v.voters/2+1 }

// change is one step of Raft's configuration towards the members.
type change struct {
	kind string // "", or one of the following
	peer peer
}

const (
	addNonvoter = "add a metadata server that has no vote yet"
	addVoter    = "give a metadata server its vote"
	removePeer  = "remove a metadata server"
	handOver    = "hand leadership over, to be removed"
)

// decide returns the next step. Adding never loses a majority: a server gets its vote when it is up and has the log, and only if with it a
// majority is up. Who was removed as a member goes in any case: whether that was safe was judged then.
func decide(peers []peer) change {
	for _, p := range peers {
		switch {
		case p.configured && p.removed && p.self:
			return change{handOver, p}
		case p.configured && p.removed:
			return change{removePeer, p}
		}
	}
	for _, p := range peers {
		if p.member && !p.configured && p.up {
			return change{addNonvoter, p}
		}
	}
	for _, p := range peers {
		if !p.member || !p.configured || p.voter || !p.up || !p.caughtUp {
			continue
		}
		with := electorate(peers, func(peer) bool { return true })
		with.voters++
		with.up++
		if with.majorityUp() {
			return change{addVoter, p}
		}
	}
	return change{}
}

// peers lists members and Raft's servers.
func (m *membership) peers() (out []peer) {
	at := map[raft.ServerID]int{}
	entry := func(id raft.ServerID) *peer {
		if _, ok := at[id]; !ok {
			n := fsm.MemberNumber(string(id))
			at[id] = len(out)
			out = append(out, peer{id: n, self: id == m.t.node.id, up: m.up(n), caughtUp: m.caughtUp(n)})
		}
		return &out[at[id]]
	}
	for _, s := range m.t.node.servers() {
		p := entry(s.ID)
		p.configured, p.voter, p.address = true, s.Suffrage == raft.Voter, string(s.Address)
	}
	_ = m.t.View(func(v *fsm.View) error {
		for _, member := range v.MetadataServers() {
			p := entry(raft.ServerID(member.Id))
			p.member, p.address, p.clients = true, member.Address, member.ClientAddress
		}
		for i := range out {
			if !out[i].member {
				_, err := v.Member(out[i].id)
				out[i].removed = isRemoved(err)
			}
		}
		return nil
	})
	return out
}

// probe asks all of them: up is who answers now.
func (m *membership) probe(ctx context.Context, peers []peer) []peer {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	var all sync.WaitGroup
	for i := range peers {
		if p := &peers[i]; !p.self && p.up {
			all.Go(func() {
				_, err := client.Ask(ctx, p.clients, m.t.config.Reach...)
				p.up = err == nil
			})
		}
	}
	all.Wait()
	return peers
}

// run lets Raft's configuration follow the members, until the term ends.
func (m *membership) run() {
	tick := time.NewTicker(reconcileEvery)
	defer tick.Stop()
	for {
		select {
		case <-m.alive.Done():
			return
		case <-m.kick:
		case <-tick.C:
		}
		for m.alive.Err() == nil && m.step() {
		}
		m.raise()
	}
}

// step does what is next; it tells whether there may be more to do.
func (m *membership) step() bool {
	peers := m.peers()
	c := decide(peers)
	if c.kind == addVoter { // up a moment ago is not enough for that
		c = decide(m.probe(m.alive, peers))
	}
	if c.kind == "" {
		return false
	}
	if err := m.do(c); err != nil {
		m.t.log.Warn("cannot "+c.kind, "server", c.peer.id, "address", c.peer.address, "error", err)
		return false
	}
	m.t.log.Info(c.kind, "server", c.peer.id, "address", c.peer.address)
	return true
}

func (m *membership) do(c change) error {
	r, id, address := m.t.node.raft, serverID(c.peer.id), raft.ServerAddress(c.peer.address)
	switch c.kind {
	case addNonvoter:
		return r.AddNonvoter(id, address, 0, applyTimeout).Error()
	case addVoter:
		return r.AddVoter(id, address, 0, applyTimeout).Error()
	case removePeer:
		return r.RemoveServer(id, 0, applyTimeout).Error()
	}
	return r.LeadershipTransfer().Error()
}
