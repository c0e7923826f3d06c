package iscsi

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"
)

// Stages of a login (RFC 7143, 11.12.3).
const (
	stageSecurity    = 0
	stageOperational = 1
	stageFull        = 3
)

// status of a login response: class and detail (RFC 7143, 11.13.5).
type loginStatus uint16

const (
	loginSuccess        loginStatus = 0x0000
	loginInitiatorError loginStatus = 0x0200
	loginAuthFailed     loginStatus = 0x0201
	loginForbidden      loginStatus = 0x0202
	loginNotFound       loginStatus = 0x0203
	loginVersion        loginStatus = 0x0205
	loginTooMany        loginStatus = 0x0206
	loginMissing        loginStatus = 0x0207
	loginSessionType    loginStatus = 0x0209
	loginNoSession      loginStatus = 0x020a
	loginUnavailable    loginStatus = 0x0301
	loginNoResources    loginStatus = 0x0302
)

// maxLoginPDUs bounds the rounds of one login.
const maxLoginPDUs = 64

// login carries a connection from its first byte to the full feature phase.
type login struct {
	srv    *Server
	conn   net.Conn
	params params

	initiator string
	target    string // its name
	info      *TargetInfo
	tag       uint16 // of the target port group
	discovery bool
	admitted  bool // the names were looked at
	chap      chap
	accounts  func(user string) (Secret, bool)
	mutual    func(user string) *Account // what the target proves itself with to a user
	isid      [6]byte
	tsih, cid uint16
	cmdSN     uint32
	statSN    uint32

	started  bool // the first request was taken
	stage    byte
	text     []byte // of a request that goes on in the next PDU
	answer   []byte
	declared bool // our MaxRecvDataSegmentLength was sent
	tagSent  bool // TargetPortalGroupTag was sent
	failed   loginStatus
	sess     *session // made when the login is about to succeed
}

// run does the login. When it returns nil the connection is in the full feature phase.
func (l *login) run(ctx context.Context) error {
	l.params = defaultParams()
	for range maxLoginPDUs {
		h, data, err := l.read()
		if err != nil {
			return err
		}
		done, err := l.request(ctx, h, data)
		if err != nil || done {
			return err
		}
	}
	return fmt.Errorf("more than %d login requests: %w", maxLoginPDUs, errLogin)
}

// read takes one PDU. It is short, so no more is read than belongs to it.
func (l *login) read() (header, []byte, error) {
	var h [headerSize]byte
	if _, err := io.ReadFull(l.conn, h[:]); err != nil {
		return nil, nil, err
	}
	hd := header(h[:])
	if hd.opcode() != opLogin {
		return nil, nil, errOpcode
	}
	if hd.dataLen() > loginSegment {
		return nil, nil, errSegment
	}
	rest := make([]byte, hd.ahsLen()+padded(hd.dataLen()))
	if _, err := io.ReadFull(l.conn, rest); err != nil {
		return nil, nil, err
	}
	return hd, rest[hd.ahsLen():][:hd.dataLen()], nil
}

// request answers one login request.
func (l *login) request(ctx context.Context, h header, data []byte) (done bool, err error) {
	l.answer = l.answer[:0]
	current, next := h[1]>>2&3, h[1]&3
	transit, more := h[1]&flagTransit != 0, h[1]&flagContinue != 0
	if !l.started {
		l.first(h)
	}
	l.checkRequest(h, current, next, transit, more)
	if len(l.text)+len(data) > maxText {
		return false, fmt.Errorf("login text of more than %d bytes: %w", maxText, errText)
	}
	l.text = append(l.text, data...)
	if l.failed != loginSuccess || more {
		return false, l.reply(h, false, current, next)
	}
	l.keys(ctx)
	if l.failed == loginSuccess && !l.named() {
		l.failed = loginMissing
	}
	transit = transit && !l.chap.open() // until the initiator has proven itself
	if l.failed == loginSuccess && l.chap.wanted && !l.chap.done && (transit || current == stageOperational) {
		l.failed = loginAuthFailed
	}
	l.stage = current
	if transit && next == stageFull && l.failed == loginSuccess {
		l.attach(ctx)
	}
	if transit && l.failed == loginSuccess {
		l.stage = next
	}
	err = l.reply(h, transit, current, next)
	return err == nil && l.stage == stageFull && l.failed == loginSuccess, err
}

// first takes what the first request decides for all.
func (l *login) first(h header) {
	l.started = true
	copy(l.isid[:], h[8:14])
	l.tsih = binary.BigEndian.Uint16(h[14:])
	l.cid = binary.BigEndian.Uint16(h[20:])
	l.cmdSN = h.cmdSN()
	l.stage = h[1] >> 2 & 3
	if h[3] != 0 { // VersionMin
		l.failed = loginVersion
	}
}

// checkRequest refuses stages that may not follow, and flags that contradict each other.
func (l *login) checkRequest(h header, current, next byte, transit, more bool) {
	switch {
	case l.failed != loginSuccess:
	case current != l.stage, current > stageOperational, transit && more,
		transit && (next <= current || next == 2),
		string(h[8:14]) != string(l.isid[:]), h.cmdSN() != l.cmdSN:
		l.failed = loginInitiatorError
	}
}

// reply sends the login response. A refused login ends with it.
func (l *login) reply(h header, transit bool, current, next byte) error {
	b := make([]byte, headerSize, headerSize+padded(len(l.answer)))
	r := header(b)
	r[0] = opLoginReply
	r[1] = current << 2
	if transit && l.failed == loginSuccess {
		r[1] |= flagTransit | next
	}
	copy(r[8:14], l.isid[:])
	if l.stage == stageFull {
		binary.BigEndian.PutUint16(r[14:], l.tsih)
	}
	copy(r[16:20], h[16:20])
	r.put(24, l.statSN)
	r.put(28, l.cmdSN)
	r.put(32, l.cmdSN+uint32(l.srv.cfg.Queue)-1)
	binary.BigEndian.PutUint16(r[36:], uint16(l.failed))
	if l.failed == loginSuccess {
		r.setDataLen(len(l.answer))
		b = append(b, l.answer...)
		b = b[:padded(len(b))]
	}
	l.statSN++
	if _, err := l.conn.Write(b); err != nil {
		return err
	}
	if l.failed != loginSuccess {
		return fmt.Errorf("status %04x: %w", uint16(l.failed), errLogin)
	}
	return nil
}

// loginTime bounds a whole login.
const loginTime = 15 * time.Second
