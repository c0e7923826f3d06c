package targets

import (
	"slices"
	"time"
	"unicode/utf8"

	"pstorage/meta/fsm"
	"pstorage/meta/targetpb"
)

const (
	// silentAfter is how long after its last Sync a node counts as alive.
	silentAfter = 5 * time.Second
	// maxNodes are remembered; where there are more, the one that was silent longest is forgotten.
	maxNodes = 1024
)

// Limits of what a node says.
const (
	maxServed   = fsm.MaxTargets
	maxSessions = 16 << 10
	maxText     = 500
	maxISID     = 6 // RFC 7143, 11.12.5
)

// node is what a node has said.
type node struct {
	name        string
	incarnation uint64
	client      []byte // that has the leases
	heard       time.Time
	served      map[string]*targetpb.Served
}

// hearing is what is known of a node now.
type hearing int

const (
	unknown hearing = iota // this leader has not led for long enough
	alive
	silent
)

// hearingOf tells how a node is. s.mu is held.
func (s *Service) hearingOf(host string) hearing {
	n := s.nodes[host]
	switch {
	case n != nil && time.Since(n.heard) < silentAfter:
		return alive
	case n == nil && time.Since(s.began) < silentAfter:
		return unknown
	}
	return silent
}

// nameOf is what people call a node.
func (s *Service) nameOf(host string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nodes[host].named(host)
}

func (n *node) named(host string) string {
	if n == nil || n.name == "" {
		return host
	}
	return n.name
}

// report returns what a node last said of a target, and how the node is.
func (s *Service) report(host, target string) (served *targetpb.Served, name string, how hearing) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.nodes[host]
	if n != nil {
		served = n.served[target]
	}
	return served, n.named(host), s.hearingOf(host)
}

// note takes what a node says, unless a later process of it has spoken.
func (s *Service) note(in *targetpb.SyncRequest) error {
	n := &node{name: in.HostName, incarnation: in.Incarnation, client: in.Client, heard: time.Now(), served: map[string]*targetpb.Served{}}
	for _, t := range in.Served {
		t.Failure = shorten(t.Failure)
		n.served[t.Name] = t
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	have := s.nodes[in.Host]
	if have != nil && have.incarnation > in.Incarnation {
		return refused("node %s: a later process of it serves its targets", n.named(in.Host))
	}
	if have == nil && len(s.nodes) >= maxNodes {
		s.forgetOne()
	}
	s.nodes[in.Host] = n
	return nil
}

// forgetOne forgets the node that was silent longest. s.mu is held.
func (s *Service) forgetOne() {
	var oldest string
	for host, n := range s.nodes {
		if have := s.nodes[oldest]; have == nil || n.heard.Before(have.heard) {
			oldest = host
		}
	}
	delete(s.nodes, oldest)
}

// checkSync bounds what a node says.
func checkSync(in *targetpb.SyncRequest) error {
	sessions, named := 0, true
	for _, t := range in.Served {
		sessions += len(t.GetSessions())
		named = named && !bad(t.GetName()) && utf8.ValidString(t.GetFailure()) && !slices.ContainsFunc(t.GetSessions(), badSession)
	}
	switch {
	case in.Host == "" || bad(in.Host) || bad(in.HostName):
		return invalid("node %.60q", in.Host)
	case len(in.Client) != 0 && len(in.Client) != fsm.ClientIDSize:
		return invalid("node %s: client %x", in.Host, in.Client)
	case len(in.Served) > maxServed || sessions > maxSessions:
		return invalid("node %s serves %d targets with %d sessions, at most %d and %d", in.Host, len(in.Served), sessions, maxServed, maxSessions)
	case !named:
		return invalid("node %s serves something without a proper name", in.Host)
	}
	return nil
}

func bad(text string) bool { return len(text) > fsm.MaxHost || !utf8.ValidString(text) }

func badSession(s *targetpb.Session) bool {
	return bad(s.GetInitiator()) || bad(s.GetAddress()) || bad(s.GetAccount()) || bad(s.GetPortal()) || len(s.GetIsid()) > maxISID
}

func shorten(s string) string {
	for len(s) > maxText {
		s = s[:maxText]
	}
	for !utf8.ValidString(s) { // it was cut within a character
		s = s[:len(s)-1]
	}
	return s
}
