// Package nbd is a small NBD client for tests and measurements: written apart from the server, from the standard alone, so that
// both misreading it the same way is unlikely.
//
// # DESIGN
//
// Dial negotiates with OPT_GO and leaves a connection with simple replies. Client sends requests from any goroutine and has one
// goroutine that reads replies. Load drives a raw socket from one thread, without the scheduler in between, so that
// what is measured is the server.
package nbd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"
)

// Numbers of the protocol.
const (
	optionMagic      = 0x49484156454f5054 // IHAVEOPT
	optionReplyMagic = 0x3e889045565a9
	requestMagic     = 0x25609513
	replyMagic       = 0x67446698

	optGo     = 7
	replyAck  = 1
	replyInfo = 3

	infoExport = 0

	CmdRead        = 0
	CmdWrite       = 1
	CmdDisconnect  = 2
	CmdFlush       = 3
	CmdTrim        = 4
	CmdWriteZeroes = 6

	FlagFUA = 1

	requestSize = 28
	replySize   = 16
)

const (
	dialTime      = 10 * time.Second
	negotiateTime = 60 * time.Second // the volume may have to recover first
	maxReplyData  = 1 << 16
)

// Export is what negotiation told.
type Export struct {
	Size  int64
	Flags uint16
}

// Dial connects to nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH.
func Dial(uri string) (net.Conn, Export, error) {
	network, address, name, err := parse(uri)
	if err != nil {
		return nil, Export{}, err
	}
	conn, err := net.DialTimeout(network, address, dialTime)
	if err != nil {
		return nil, Export{}, err
	}
	export, err := negotiate(conn, name)
	if err != nil {
		conn.Close()
		return nil, Export{}, fmt.Errorf("%s: %w", uri, err)
	}
	return conn, export, nil
}

func parse(uri string) (network, address, name string, err error) {
	u, err := url.Parse(uri)
	if err != nil {
		return "", "", "", err
	}
	name = strings.TrimPrefix(u.Path, "/")
	switch u.Scheme {
	case "nbd":
		return "tcp", u.Host, name, nil
	case "nbd+unix":
		return "unix", u.Query().Get("socket"), name, nil
	}
	return "", "", "", fmt.Errorf("%s: neither nbd nor nbd+unix", uri)
}

func negotiate(conn net.Conn, name string) (Export, error) {
	if err := conn.SetDeadline(time.Now().Add(negotiateTime)); err != nil {
		return Export{}, err
	}
	var greeting [18]byte
	if _, err := io.ReadFull(conn, greeting[:]); err != nil {
		return Export{}, err
	}
	if string(greeting[:8]) != "NBDMAGIC" || binary.BigEndian.Uint64(greeting[8:]) != optionMagic || greeting[17]&1 == 0 {
		return Export{}, fmt.Errorf("not a fixed newstyle server: %q", greeting)
	}
	if _, err := conn.Write(goOption(name)); err != nil {
		return Export{}, err
	}
	export, err := readExport(conn)
	if err != nil {
		return Export{}, err
	}
	return export, conn.SetDeadline(time.Time{})
}

// goOption is the client's flags (fixed newstyle, no zeroes) and the option GO.
func goOption(name string) []byte {
	b := binary.BigEndian.AppendUint32(nil, 3)
	b = binary.BigEndian.AppendUint64(b, optionMagic)
	b = binary.BigEndian.AppendUint32(b, optGo)
	b = binary.BigEndian.AppendUint32(b, uint32(4+len(name)+2))
	b = binary.BigEndian.AppendUint32(b, uint32(len(name)))
	b = append(b, name...)
	return binary.BigEndian.AppendUint16(b, 0)
}

// ErrRefused: the server does not give the export.
var ErrRefused = errors.New("export refused")

func readExport(conn io.Reader) (export Export, err error) {
	for {
		var head [20]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return export, err
		}
		kind, length := binary.BigEndian.Uint32(head[12:]), binary.BigEndian.Uint32(head[16:])
		if binary.BigEndian.Uint64(head[:]) != optionReplyMagic || length > maxReplyData {
			return export, fmt.Errorf("bad reply to an option: %x", head)
		}
		data := make([]byte, length)
		if _, err := io.ReadFull(conn, data); err != nil {
			return export, err
		}
		switch {
		case kind == replyAck:
			return export, nil
		case kind != replyInfo:
			return export, fmt.Errorf("%w: %#x %s", ErrRefused, kind, bytes.TrimSpace(data))
		case length >= 12 && binary.BigEndian.Uint16(data) == infoExport:
			export.Size, export.Flags = int64(binary.BigEndian.Uint64(data[2:])), binary.BigEndian.Uint16(data[10:])
		}
	}
}

func putRequest(b []byte, command, flags uint16, cookie uint64, offset int64, length uint32) {
	binary.BigEndian.PutUint32(b[0:], requestMagic)
	binary.BigEndian.PutUint16(b[4:], flags)
	binary.BigEndian.PutUint16(b[6:], command)
	binary.BigEndian.PutUint64(b[8:], cookie)
	binary.BigEndian.PutUint64(b[16:], uint64(offset))
	binary.BigEndian.PutUint32(b[24:], length)
}
