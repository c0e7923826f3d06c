package iscsi

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"time"
)

// nopOut answers a ping with the data it brought. One without a task tag is the answer to ours.
func (s *session) nopOut(p pdu) error {
	take, err := s.sequenced(p.header)
	if err != nil || !take || p.tag() == reservedTag {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.control(opNopIn)
	h := c.head()
	copyLUN(h, p.lun())
	h.put(16, p.tag())
	h.put(20, reservedTag)
	c.setData(p.data[:min(len(p.data), s.params.maxSend)])
	s.send(c)
	return nil
}

func copyLUN(h header, lun uint64) { binary.BigEndian.PutUint64(h[8:], lun) }

// reject answers a PDU that cannot be handled, with its header.
func (s *session) reject(p pdu, reason byte) {
	s.srv.metrics.rejects.Inc()
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.control(opReject)
	c.hdr[2] = reason
	c.head().put(16, reservedTag)
	c.setData(p.header)
	s.send(c)
}

// Reasons and responses of a logout (RFC 7143, 11.14 and 11.15).
const (
	logoutSession    = 0
	logoutConnection = 1

	logoutDone       = 0
	logoutNoCID      = 1
	logoutNoRecovery = 2
)

// logout ends the session: its tasks first, so that nothing it began happens after the answer.
func (s *session) logout(p pdu) error {
	take, err := s.sequenced(p.header)
	if err != nil || !take {
		return err
	}
	tag := p.tag()
	cid := binary.BigEndian.Uint16(p.header[20:])
	switch reason := p.header[1] & 0x7f; {
	case reason == logoutConnection && cid != s.cid:
		s.logoutDone(tag, logoutNoCID, false)
	case reason > logoutConnection:
		s.logoutDone(tag, logoutNoRecovery, false)
	default:
		s.leaving = true
		s.abortAll(func() { s.logoutDone(tag, logoutDone, true) })
	}
	return nil
}

func (s *session) logoutDone(tag uint32, response byte, last bool) {
	s.mu.Lock()
	c := s.control(opLogoutReply)
	c.hdr[2] = response
	c.head().put(16, tag)
	c.last = last
	s.send(c)
	s.mu.Unlock()
	s.flush()
}

// textTime bounds the listing of volumes.
const textTime = 5 * time.Second

// textTag marks a text reply that goes on: there is one at a time.
const textTag = 1

// text answers a text request: SendTargets, which is all there is to ask once logged in.
func (s *session) text(p pdu) error {
	take, err := s.sequenced(p.header)
	if err != nil || !take {
		return err
	}
	switch {
	case p.header[1]&flagContinue != 0: // no request that is understood is as long
		s.reject(p, rejectInvalidField)
	case p.u32(20) == textTag && len(p.data) == 0 && len(s.textRest) > 0:
		s.textReply(p)
	case p.u32(20) != reservedTag:
		s.reject(p, rejectInvalidField)
	default:
		pairs, err := parseText(p.data)
		if err != nil {
			s.reject(p, rejectProtocol)
			return nil
		}
		s.textRest = s.textAnswer(pairs)
		s.textReply(p)
	}
	return nil
}

// textReply sends as much of the answer as the initiator takes in one PDU.
func (s *session) textReply(p pdu) {
	n := min(len(s.textRest), s.params.maxSend)
	part := s.textRest[:n]
	s.textRest = s.textRest[n:]
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.control(opTextReply)
	h := c.head()
	h.put(16, p.tag())
	h.put(20, reservedTag)
	if len(s.textRest) > 0 {
		c.hdr[1] = flagContinue
		h.put(20, textTag)
	}
	c.setData(part)
	s.send(c)
}

func (s *session) textAnswer(pairs []pair) (b []byte) {
	for _, p := range pairs {
		if p.key == "SendTargets" {
			b = s.sendTargets(b, p.value)
			continue
		}
		if answer := s.params.negotiate(p.key, p.value); answer != "" {
			b = appendPair(b, p.key, answerLate(answer))
		}
	}
	return b
}

// answerLate: what is operational is not negotiated again in the full feature phase.
func answerLate(answer string) string {
	if answer == notUnderstood {
		return answer
	}
	return reject
}

// sendTargets lists all targets that the initiator may log in to, the one named, or (empty) the session's own.
func (s *session) sendTargets(b []byte, value string) []byte {
	if value == "" && s.target != nil {
		value = s.target.name
	}
	ctx, cancel := context.WithTimeout(s.srv.ctx, textTime)
	defer cancel()
	if value != "All" && !isName(value) {
		return appendPair(b, "SendTargets", reject)
	}
	list, err := s.srv.cfg.Targets.List(ctx)
	if err != nil {
		s.log.Warn("targets cannot be listed", "err", err)
		return appendPair(b, "SendTargets", reject)
	}
	for i := range list {
		if t := &list[i]; (value == "All" || strings.EqualFold(value, t.Name)) && s.visible(t) {
			b = s.appendTarget(b, t)
		}
	}
	return b
}

// isName reports whether s has the form of an iSCSI name (RFC 7143, 4.2.7).
func isName(s string) bool {
	if len(s) < 4 || !validName(s) {
		return false
	}
	switch strings.ToLower(s[:4]) {
	case "iqn.", "eui.", "naa.":
		return true
	}
	return false
}

// visible reports whether the initiator may log in to a target at the address that it came to, as far as it has proven who it is.
func (s *session) visible(t *TargetInfo) bool {
	if s.target != nil && s.target.name == t.Name {
		return true
	}
	if _, here := t.portal(s.conn.LocalAddr()); !here || !t.allows(s.initiator()) {
		return false
	}
	_, known := t.account(s.user)
	return len(t.Accounts) == 0 || s.user != "" && known
}

// appendTarget names a target and where it is: at its portals or, if it has none of its own, at the address that the initiator
// came to.
func (s *session) appendTarget(b []byte, t *TargetInfo) []byte {
	b = appendPair(b, "TargetName", t.Name)
	local := s.conn.LocalAddr().String()
	if len(t.Portals) == 0 {
		return appendPair(b, "TargetAddress", local+",1")
	}
	_, port, _ := net.SplitHostPort(local)
	for _, p := range t.Portals {
		address := p.Address
		if _, _, err := net.SplitHostPort(address); err != nil {
			address = net.JoinHostPort(address, port)
		}
		b = appendPair(b, "TargetAddress", fmt.Sprintf("%s,%d", address, p.tag()))
	}
	return b
}
