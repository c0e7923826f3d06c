package iscsi

import (
	"context"
	"slices"
	"strings"
	"time"
)

// SessionInfo describes a session with a target.
type SessionInfo struct {
	Initiator string // its iSCSI name
	ISID      [6]byte
	Address   string // where it comes from
	Portal    string // where it came to
	Account   string // that the initiator has proven with CHAP; empty: none
	Since     time.Time
}

// Sessions returns the sessions of a target, those that are about to be logged in too, the oldest first. The name is the target's
// own, as Targets says it.
func (s *Server) Sessions(target string) (list []SessionInfo) {
	t := s.targetInUse(target)
	if t == nil {
		return nil
	}
	t.each(func(x *session) { list = append(list, x.describe()) })
	slices.SortFunc(list, func(a, b SessionInfo) int {
		if c := a.Since.Compare(b.Since); c != 0 {
			return c
		}
		return strings.Compare(a.Address, b.Address)
	})
	return list
}

func (s *session) describe() SessionInfo {
	return SessionInfo{Initiator: s.initiator(), ISID: s.isid, Address: s.conn.RemoteAddr().String(), Portal: s.conn.LocalAddr().String(),
		Account: s.user, Since: s.since}
}

// initiator is the initiator's name, which its port's begins with.
func (s *session) initiator() string {
	name, _, _ := strings.Cut(s.port, ",i,")
	return name
}

// Drain ends the sessions of a target that Targets has no more: each finishes what it has begun, tells its initiator, and is closed.
// It returns nil when nothing uses the target's volumes any more. When ctx ends first the connections are cut, and Drain
// returns its error: what is at a device then is still awaited, by the next Drain.
func (s *Server) Drain(ctx context.Context, target string) error {
	t := s.targetInUse(target)
	if t == nil {
		return s.haltUnserved(ctx)
	}
	t.each((*session).stopGently)
	select {
	case <-t.gone:
		return s.haltUnserved(ctx)
	case <-ctx.Done():
		t.each((*session).kill)
		return ctx.Err()
	}
}
