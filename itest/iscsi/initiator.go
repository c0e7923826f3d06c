// Package iscsi is a small iSCSI initiator for tests: it does what the usual tools cannot be told to do, such as authentication
// step by step, digests, task management in the middle of a load, and many idle sessions.
package iscsi

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"strings"
)

// Options of a login.
type Options struct {
	Initiator, Target      string // a target of "" asks for a discovery session
	ISID                   byte
	User, Secret           string // for CHAP; no user: without
	TargetUser, TargetPass string // what the target has to prove
	HeaderDigest           bool
	DataDigest             bool
	Keys                   []string // further ones
}

// Session is a logged-in connection. It is for one goroutine.
type Session struct {
	conn         net.Conn
	in           *bufio.Reader
	o            Options
	header, data bool // digests, since the login
	cmdSN, tag   uint32
	statSN       uint32
	owed         map[uint32][]byte // by tag: data of commands that did not fit the first burst
	stop         *stop             // nil: the login goes on to its end
}

// Errors of a login and of a command.
var (
	ErrLogin  = errors.New("login refused")
	ErrStatus = errors.New("command failed")
)

const (
	headerSize = 48
	login      = 0x43 // immediate
	reserved   = 0xffffffff
	readBuffer = 16 << 10
)

var table = crc32.MakeTable(crc32.Castagnoli)

// Login connects and logs in.
func Login(ctx context.Context, address string, o Options) (*Session, error) {
	s, err := dial(ctx, address, o)
	if err != nil {
		return nil, err
	}
	if err := s.login(); err != nil {
		_ = s.conn.Close()
		return nil, err
	}
	s.header, s.data = o.HeaderDigest, o.DataDigest
	return s, nil
}

func dial(ctx context.Context, address string, o Options) (*Session, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	return &Session{conn: conn, in: bufio.NewReaderSize(conn, readBuffer), o: o, cmdSN: 1, owed: map[uint32][]byte{}}, nil
}

// Close ends the connection without a logout.
func (s *Session) Close() error { return s.conn.Close() }

func digest(on bool) string {
	if on {
		return "CRC32C"
	}
	return "None"
}

func (s *Session) login() error {
	names := []string{"InitiatorName=" + s.o.Initiator, "SessionType=Discovery"}
	if s.o.Target != "" {
		names = []string{"InitiatorName=" + s.o.Initiator, "SessionType=Normal", "TargetName=" + s.o.Target}
	}
	var err error
	if s.o.User != "" {
		err = s.authenticate(names)
		names = nil
	}
	if err != nil {
		return err
	}
	keys := append(names, "HeaderDigest="+digest(s.o.HeaderDigest), "DataDigest="+digest(s.o.DataDigest),
		"InitialR2T=No", "ImmediateData=Yes", "MaxRecvDataSegmentLength=262144", "MaxBurstLength=1048576")
	_, err = s.step(1, 3, append(keys, s.o.Keys...))
	return err
}

// step sends a login request and returns the pairs of the answer. next below 0: the stage goes on.
func (s *Session) step(current, next int, keys []string) (map[string]string, error) {
	h := make([]byte, headerSize)
	h[0] = login
	h[1] = byte(current << 2)
	if next >= 0 {
		h[1] |= 0x80 | byte(next)
	}
	copy(h[8:], []byte{0x80, 0, 0, 0, 0, s.o.ISID})
	binary.BigEndian.PutUint32(h[24:], s.cmdSN)
	text := []byte(strings.Join(keys, "\x00") + "\x00")
	if s.stop != nil {
		if err := s.stop.before(s, h, text); err != nil {
			return nil, err
		}
	}
	if err := s.send(h, text); err != nil {
		return nil, err
	}
	p, err := s.Receive()
	if err != nil {
		return nil, err
	}
	if status := binary.BigEndian.Uint16(p.Header[36:]); status != 0 {
		return nil, fmt.Errorf("%w: status %04x", ErrLogin, status)
	}
	answer := map[string]string{}
	for _, pair := range strings.Split(string(p.Data), "\x00") {
		if key, value, ok := strings.Cut(pair, "="); ok {
			answer[key] = value
		}
	}
	return answer, nil
}

// PDU is what the target sent.
type PDU struct {
	Header, Data []byte
}

// Opcode tells the kind.
func (p PDU) Opcode() byte { return p.Header[0] & 0x3f }

// Tag is the initiator task tag.
func (p PDU) Tag() uint32 { return p.word(16) }

// Status is the SCSI status of a response.
func (p PDU) Status() byte { return p.Header[3] }

func (p PDU) word(at int) uint32 { return binary.BigEndian.Uint32(p.Header[at:]) }

func pad(n int) int { return (n + 3) &^ 3 }

func (s *Session) send(h, data []byte) error {
	_, err := s.conn.Write(s.encode(h, data))
	return err
}

// encode makes a PDU with its lengths, digests and ExpStatSN.
func (s *Session) encode(h, data []byte) []byte {
	h[5], h[6], h[7] = byte(len(data)>>16), byte(len(data)>>8), byte(len(data))
	if h[0] != login {
		binary.BigEndian.PutUint32(h[28:], s.statSN+1)
	}
	b := append([]byte(nil), h...)
	if s.header {
		b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(h, table))
	}
	if len(data) > 0 {
		padded := append(append([]byte(nil), data...), make([]byte, pad(len(data))-len(data))...)
		b = append(b, padded...)
		if s.data {
			b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(padded, table))
		}
	}
	return b
}

var errDigest = errors.New("digest does not match")

// Receive reads a PDU and checks its digests. Pings of the target are answered, and data it asks for is sent.
func (s *Session) Receive() (PDU, error) {
	for {
		if p, ours, err := s.Next(); err != nil || ours {
			return p, err
		}
	}
}

// Next is Receive of one PDU; not ours: it was a ping or asked for data.
func (s *Session) Next() (p PDU, ours bool, err error) {
	if p, err = s.receive(); err != nil {
		return p, false, err
	}
	switch {
	case p.Opcode() == opReadyToTransfer:
		return p, false, s.supply(p)
	case p.Opcode() == 0x20 && p.Tag() == reserved:
		return p, false, s.pong(p)
	case p.Opcode() == 0x21:
		delete(s.owed, p.Tag())
	}
	return p, true, nil
}

// pong answers a ping.
func (s *Session) pong(p PDU) error {
	h := make([]byte, headerSize)
	h[0], h[1] = 0x40, 0x80
	binary.BigEndian.PutUint32(h[16:], reserved)
	copy(h[20:24], p.Header[20:24])
	binary.BigEndian.PutUint32(h[24:], s.cmdSN)
	return s.send(h, nil)
}

func (s *Session) receive() (p PDU, err error) {
	p.Header = make([]byte, headerSize)
	if _, err = io.ReadFull(s.in, p.Header); err != nil {
		return p, err
	}
	if s.header && !s.verify(p.Header) {
		return p, errDigest
	}
	n := int(p.Header[5])<<16 | int(p.Header[6])<<8 | int(p.Header[7])
	p.Data = make([]byte, pad(n))
	if _, err = io.ReadFull(s.in, p.Data); err != nil {
		return p, err
	}
	if s.data && n > 0 && !s.verify(p.Data) {
		return p, errDigest
	}
	p.Data = p.Data[:n]
	if op := p.Opcode(); op != opReadyToTransfer && (op != 0x25 || p.Header[1]&1 != 0) && (op != 0x20 || p.Tag() != reserved) {
		s.statSN = p.word(24)
	}
	return p, nil
}

// verify reads a digest and compares it.
func (s *Session) verify(data []byte) bool {
	var d [4]byte
	_, err := io.ReadFull(s.in, d[:])
	return err == nil && binary.LittleEndian.Uint32(d[:]) == crc32.Checksum(data, table)
}
