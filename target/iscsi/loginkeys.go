package iscsi

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// keys answers all pairs of the collected text.
func (l *login) keys(ctx context.Context) {
	pairs, err := parseText(l.text)
	if l.text = nil; err != nil {
		l.failed = loginInitiatorError
		return
	}
	seen := make(map[string]bool, len(pairs))
	for _, p := range pairs {
		if seen[p.key] {
			l.failed = loginInitiatorError
			return
		}
		seen[p.key] = true
		l.name(p.key, p.value)
	}
	if l.failed == loginSuccess && !l.admitted && l.named() {
		l.admitted = true
		l.admit(ctx)
	}
	for _, p := range pairs {
		if l.failed == loginSuccess {
			l.key(p.key, p.value)
		}
	}
	if l.failed == loginSuccess {
		l.conclude(seen["AuthMethod"])
	}
}

// name takes the keys that say who wants what.
func (l *login) name(key, value string) {
	switch {
	case key == "InitiatorName" || key == "TargetName" || key == "SessionType":
		if l.admitted { // nobody becomes another in the middle
			l.failed = loginInitiatorError
			return
		}
	default:
		return
	}
	switch key {
	case "InitiatorName":
		if l.initiator = strings.ToLower(value); !validName(l.initiator) {
			l.failed = loginInitiatorError
		}
	case "SessionType":
		l.sessionType(value)
	case "TargetName":
		l.target = value
	}
}

func (l *login) key(key, value string) {
	switch key {
	case "InitiatorName", "SessionType", "TargetName", "InitiatorAlias":
	case "AuthMethod":
		l.method(value)
	default:
		if l.stage == stageSecurity && l.chap.chosen && l.chap.key(key, value) {
			return
		}
		if answer := l.params.negotiate(key, value); answer != "" {
			l.answer = appendPair(l.answer, key, answer)
		}
	}
}

// method chooses how the initiator is to prove itself. One that need not may still do it for discovery, to be shown more.
func (l *login) method(list string) {
	offered := strings.Split(list, ",")
	useful := l.stage == stageSecurity && (l.chap.wanted || l.discovery && l.accounts != nil)
	switch {
	case l.chap.chosen:
		l.failed = loginInitiatorError
	case useful && slices.Contains(offered, "CHAP"):
		l.chap.chosen = true
		l.answer = appendPair(l.answer, "AuthMethod", "CHAP")
	case !l.chap.wanted && slices.Contains(offered, none):
		l.answer = appendPair(l.answer, "AuthMethod", none)
	default:
		l.failed = loginAuthFailed
	}
}

// conclude adds what answers the keys together, and what is declared once.
func (l *login) conclude(methodAsked bool) {
	if l.chap.open() && !methodAsked {
		var err error
		if l.answer, err = l.chap.proceed(l.answer, l.accounts, l.mutual); err != nil {
			l.failed = loginAuthFailed
			return
		}
	}
	if !l.tagSent && l.info != nil {
		l.tagSent = true
		l.answer = appendPair(l.answer, "TargetPortalGroupTag", strconv.Itoa(int(l.tag)))
	}
	if l.stage == stageOperational && !l.declared {
		l.declared = true
		l.answer = appendPair(l.answer, "MaxRecvDataSegmentLength", strconv.Itoa(ourSegment))
	}
}

func (l *login) sessionType(value string) {
	switch value {
	case "Discovery":
		l.discovery = true
	case "Normal":
	default:
		l.failed = loginSessionType
	}
}

// admit looks the target up and decides whether the initiator may log in, and whether it has to prove who it is.
func (l *login) admit(ctx context.Context) {
	if l.discovery {
		l.admitDiscovery(ctx)
		return
	}
	info, err := l.srv.cfg.Targets.Lookup(ctx, l.target)
	if err == nil {
		l.target = info.Name
		err = info.Validate()
	}
	switch tag, served := info.portal(l.conn.LocalAddr()); {
	case missing(err), err == nil && !served:
		l.failed = loginNotFound
	case err != nil:
		l.srv.log.Warn("target cannot be looked up", "target", l.target, "initiator", l.initiator, "err", err)
		l.failed = loginUnavailable
	case !info.allows(l.initiator):
		l.failed = loginForbidden
	default:
		l.info, l.tag = &info, tag
		l.chap.wanted, l.accounts = len(info.Accounts) > 0, info.account
		l.mutual = func(string) *Account { return info.Mutual }
	}
}

// admitDiscovery has the initiator prove any account of the targets that are served at this address and may be its own. The target
// proves itself, to who asks for that, with what one of the targets of that account has.
func (l *login) admitDiscovery(ctx context.Context) {
	list, err := l.srv.cfg.Targets.List(ctx)
	if err != nil {
		return // there is nothing to show, nor to prove
	}
	list = slices.Clone(list)
	list = slices.DeleteFunc(list, func(t TargetInfo) bool {
		_, here := t.portal(l.conn.LocalAddr())
		return !here || !t.allows(l.initiator) || len(t.Accounts) == 0
	})
	if len(list) == 0 {
		return
	}
	l.accounts = func(user string) (Secret, bool) {
		for i := range list {
			if s, ok := list[i].account(user); ok {
				return s, true
			}
		}
		return Secret{}, false
	}
	l.mutual = func(user string) *Account {
		i := slices.IndexFunc(list, func(t TargetInfo) bool {
			_, known := t.account(user)
			return known && t.Mutual != nil
		})
		if i < 0 {
			return nil
		}
		return list[i].Mutual
	}
}

// validName: an iSCSI name of a length that is allowed, of characters that print.
func validName(s string) bool {
	if s == "" || len(s) > 223 {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c == 0x7f || c == ',' {
			return false
		}
	}
	return true
}

// named reports whether the names are there that have to come with the first request.
func (l *login) named() bool { return l.initiator != "" && (l.discovery || l.target != "") }

// attach makes the session, once all else is agreed.
func (l *login) attach(ctx context.Context) {
	if !l.continues() {
		return
	}
	if l.discovery {
		l.sess = newSession(l, nil)
		l.tsih = l.srv.addSession(l.sess, 0)
		return
	}
	err := l.join(ctx)
	switch {
	case err == nil:
		l.tsih = l.srv.addSession(l.sess, l.tsih)
	case missing(err):
		l.failed = loginNotFound
	default:
		l.srv.log.Warn("target cannot be opened", "target", l.target, "initiator", l.initiator, "err", err)
		l.failed = loginUnavailable
	}
}

// continues reports whether the session handle is one that a login may have: none or, for the same connection once more, that
// of the initiator port's own session, whose place the new connection takes with nothing of the old one left (RFC 7143, 6.3.4;
// that is all there is to connection reinstatement at error recovery level 0).
func (l *login) continues() bool {
	if l.tsih == 0 {
		return true
	}
	old := l.srv.session(l.tsih)
	switch {
	case old == nil, l.discovery, old.target == nil, old.port != l.port(), old.target.name != l.info.Name, old.tag != l.tag:
		l.failed = loginNoSession
	case old.cid != l.cid:
		l.failed = loginTooMany
	}
	return l.failed == loginSuccess
}

// join opens the volumes and takes the place of older sessions of the same initiator port: what they began has to be
// over before the new one is told that it may begin (RFC 7143, 6.3.5).
func (l *login) join(ctx context.Context) error {
	tgt := l.srv.useTarget(l.info)
	l.sess = newSession(l, tgt)
	ctx, l.sess.abandon = context.WithCancel(ctx)
	for _, old := range tgt.join(l.sess) {
		old.kill()
		select {
		case <-old.done:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the end of an older session: %w", ctx.Err())
		}
	}
	if err := tgt.refresh(ctx); err != nil { // it may have changed, or gone, before the session could be told
		return err
	}
	return l.sess.openPaths(ctx)
}

// port names the initiator port, as persistent reservations know it.
func (l *login) port() string { return fmt.Sprintf("%s,i,0x%012x", l.initiator, l.isid[:]) }
