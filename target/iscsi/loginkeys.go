package iscsi

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"pstorage/blockstore/block"
)

// keys answers all pairs of the collected text.
func (l *login) keys() {
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
		l.key(p.key, p.value)
	}
	if !l.tagSent && !l.discovery && l.target != "" {
		l.tagSent = true
		l.answer = appendPair(l.answer, "TargetPortalGroupTag", "1")
	}
	if l.stage == stageOperational && !l.declared {
		l.declared = true
		l.answer = appendPair(l.answer, "MaxRecvDataSegmentLength", strconv.Itoa(ourSegment))
	}
}

func (l *login) key(key, value string) {
	switch key {
	case "InitiatorName":
		if l.initiator = strings.ToLower(value); !validName(l.initiator) {
			l.failed = loginInitiatorError
		}
	case "SessionType":
		l.sessionType(value)
	case "TargetName":
		l.targetName(value)
	case "InitiatorAlias":
	default:
		answer := l.params.negotiate(key, value)
		if answer != "" {
			l.answer = appendPair(l.answer, key, answer)
		}
		if key == "AuthMethod" && answer == reject {
			l.failed = loginAuthFailed
		}
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

// targetName takes the volume's name out of its target's. The prefix is compared as iSCSI names are, the rest as volumes'
// are.
func (l *login) targetName(value string) {
	n := len(l.srv.cfg.TargetPrefix)
	if len(value) <= n || !strings.EqualFold(value[:n], l.srv.cfg.TargetPrefix) {
		l.failed = loginNotFound
		return
	}
	l.target = value[n:]
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

// attach opens the target of a normal session, once all else is agreed.
func (l *login) attach(ctx context.Context) {
	switch {
	case l.tsih != 0 && l.srv.hasSession(l.tsih):
		l.failed = loginTooMany
		return
	case l.tsih != 0:
		l.failed = loginNoSession
		return
	case l.discovery:
		l.sess = newSession(l, nil)
		l.tsih = l.srv.addSession(l.sess)
		return
	}
	err := l.join(ctx)
	switch {
	case err == nil:
		l.tsih = l.srv.addSession(l.sess)
	case errors.Is(err, block.ErrNotFound):
		l.failed = loginNotFound
	default:
		l.srv.log.Warn("volume cannot be opened", "volume", l.target, "initiator", l.initiator, "err", err)
		l.failed = loginUnavailable
	}
}

// join opens the volume and takes the place of older sessions of the same initiator port: what they began has to be
// over before the new one is told that it may begin (RFC 7143, 6.3.5).
func (l *login) join(ctx context.Context) error {
	tgt, err := l.srv.openTarget(ctx, l.target)
	if err != nil {
		return err
	}
	l.sess = newSession(l, tgt)
	for _, old := range tgt.join(l.sess) {
		old.kill()
		select {
		case <-old.done:
		case <-ctx.Done():
			return fmt.Errorf("waiting for the end of an older session: %w", ctx.Err())
		}
	}
	return nil
}

// port names the initiator port, as persistent reservations know it.
func (l *login) port() string { return fmt.Sprintf("%s,i,0x%012x", l.initiator, l.isid[:]) }
