package nbd

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// dialTime is how long a server may take until it has let a client in: its volume may have to recover first.
const dialTime = 60 * time.Second

// maxExports is how many exports of a server are listed.
const maxExports = 1 << 16

// Why a server does not give an export.
var (
	ErrNoExport = errors.New("no such export")
	ErrNeedsTLS = errors.New("the server lets nobody in without TLS")
	ErrRefused  = errors.New("the server refuses")
	ErrServer   = errors.New("the server does not speak NBD as it must") // or none answers that is one
)

// Export is what a server tells of a volume.
type Export struct {
	Name     string
	Size     int64  // bytes
	Flags    uint16 // transmission flags
	MinBlock uint32 // bytes: requests are multiples of it; 0: not told
}

// ReadOnly tells that writes are refused.
func (e *Export) ReadOnly() bool { return e.Flags&flagReadOnly != 0 }

// SetReadOnly says so.
func (e *Export) SetReadOnly(yes bool) {
	if e.Flags &^= flagReadOnly; yes {
		e.Flags |= flagReadOnly
	}
}

// MultiConn tells that a flush on one of several connections covers all.
func (e *Export) MultiConn() bool { return e.Flags&flagCanMultiConn != 0 }

// Session says which connection it is, and in whose place: those are ended first, so that nothing that is still under way of them takes effect
// afterwards. Servers of others do not know of that, and are not asked for more than to say so.
type Session struct {
	Identity Identity // zero: none
	Replaces []Identity
}

// Dial connects to a server at HOST:PORT or unix:PATH and negotiates for an export, with simple replies. What follows on the connection are
// requests.
func Dial(ctx context.Context, address, export string, as Session) (net.Conn, Export, error) {
	if len(export) > maxString {
		return nil, Export{}, fmt.Errorf("%w: names have at most %d bytes", ErrNoExport, maxString)
	}
	d, err := startDialogue(ctx, address)
	if err != nil {
		return nil, Export{}, fmt.Errorf("NBD server %s: %w", address, err)
	}
	err = d.identify(as)
	var e Export
	if err == nil {
		e, err = d.info(optGo, export)
	}
	if err == nil && d.in.Buffered() > 0 {
		err = fmt.Errorf("%w: data before the first request", ErrServer)
	}
	if err = d.end(err); err != nil {
		return nil, e, fmt.Errorf("NBD server %s: export %q: %w", address, export, err)
	}
	return d.conn, e, nil
}

// Exports lists what a server exports.
func Exports(ctx context.Context, address string) (all []Export, err error) {
	d, err := startDialogue(ctx, address)
	if err == nil {
		all, err = d.exports()
		if err = d.end(err); err == nil {
			err = d.conn.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("NBD server %s: %w", address, err)
	}
	return all, nil
}

// dialogue is a client's side of a handshake.
type dialogue struct {
	conn net.Conn
	in   *bufio.Reader
	ctx  context.Context
	stop func() bool
}

func startDialogue(ctx context.Context, address string) (*dialogue, error) {
	network := "tcp"
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	dialer := net.Dialer{Timeout: dialTime}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	d := newDialogue(ctx, conn)
	if err := d.greet(); err != nil {
		return nil, d.end(err)
	}
	return d, nil
}

func newDialogue(ctx context.Context, conn net.Conn) *dialogue {
	d := &dialogue{conn: conn, in: bufio.NewReader(conn), ctx: ctx}
	d.stop = context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	return d
}

// end ends the handshake: the connection is the caller's, or closed if there was an error.
func (d *dialogue) end(err error) error {
	if !d.stop() {
		err = context.Cause(d.ctx)
	}
	if err == nil {
		err = d.conn.SetDeadline(time.Time{})
	}
	if err != nil {
		d.conn.Close()
	}
	return err
}

// greet is the part before options: the server's greeting, the client's flags.
func (d *dialogue) greet() error {
	if err := d.conn.SetDeadline(time.Now().Add(dialTime)); err != nil {
		return err
	}
	var b [18]byte
	if _, err := io.ReadFull(d.in, b[:]); err != nil {
		return fmt.Errorf("%w: %w", ErrServer, err)
	}
	be := binary.BigEndian
	if flags := be.Uint16(b[16:]); be.Uint64(b[:]) != magicServer || be.Uint64(b[8:]) != magicOption ||
		flags&(flagFixedNewstyle|flagNoZeroes) != flagFixedNewstyle|flagNoZeroes {
		return fmt.Errorf("%w: it begins with %x", ErrServer, b)
	}
	_, err := d.conn.Write(be.AppendUint32(nil, flagFixedNewstyle|flagNoZeroes))
	return err
}

func (d *dialogue) ask(option uint32, data []byte) error {
	be := binary.BigEndian
	b := be.AppendUint64(make([]byte, 0, optionSize+len(data)), magicOption)
	b = be.AppendUint32(b, option)
	b = be.AppendUint32(b, uint32(len(data)))
	_, err := d.conn.Write(append(b, data...))
	return err
}

// answer reads a reply to an option: its type and data. One that says no is an error.
func (d *dialogue) answer(option uint32) (kind uint32, data []byte, err error) {
	be := binary.BigEndian
	var b [optionReplySize]byte
	if _, err := io.ReadFull(d.in, b[:]); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrServer, err)
	}
	length := be.Uint32(b[16:])
	if be.Uint64(b[:]) != magicReply || be.Uint32(b[8:]) != option || length > 2*maxString {
		return 0, nil, fmt.Errorf("%w: reply %x to option %d", ErrServer, b, option)
	}
	data = make([]byte, length)
	if _, err := io.ReadFull(d.in, data); err != nil {
		return 0, nil, fmt.Errorf("%w: %w", ErrServer, err)
	}
	if kind = be.Uint32(b[12:]); kind&repErr != 0 {
		return kind, nil, refusal(kind, data)
	}
	return kind, data, nil
}

func refusal(kind uint32, text []byte) error {
	err := ErrRefused
	switch kind {
	case repErrUnknown:
		err = ErrNoExport
	case repErrTLSReqd:
		err = ErrNeedsTLS
	}
	if len(text) > 0 {
		return fmt.Errorf("%w: it says %q", err, text)
	}
	return fmt.Errorf("%w (error %d)", err, kind&^repErr)
}

// identify says which connection it is.
func (d *dialogue) identify(as Session) error {
	if as.Identity == (Identity{}) {
		return nil
	}
	data := as.Identity[:]
	for _, id := range as.Replaces {
		data = append(data, id[:]...)
	}
	if err := d.ask(optReplace, data); err != nil {
		return err
	}
	if kind, _, err := d.answer(optReplace); err != nil && kind != repErrUnsup {
		return err
	}
	return nil
}

// info asks for an export: what it is (INFO), or to use it (GO).
func (d *dialogue) info(option uint32, name string) (e Export, err error) {
	be := binary.BigEndian
	request := append(be.AppendUint32(nil, uint32(len(name))), name...)
	request = be.AppendUint16(request, 1)
	if err := d.ask(option, be.AppendUint16(request, infoBlockSize)); err != nil {
		return e, err
	}
	e.Name = name
	for told := false; ; {
		kind, data, err := d.answer(option)
		switch {
		case err != nil:
			return e, err
		case kind == repAck && told && e.Size >= 0:
			return e, nil
		case kind != repInfo || len(data) < 2:
			return e, fmt.Errorf("%w: reply %d, %d bytes, to option %d", ErrServer, kind, len(data), option)
		}
		switch what := be.Uint16(data); {
		case what == infoExport && len(data) == 12:
			e.Size, e.Flags, told = int64(be.Uint64(data[2:])), be.Uint16(data[10:]), true
		case what == infoBlockSize && len(data) == 14:
			e.MinBlock = be.Uint32(data[2:])
		}
	}
}

func (d *dialogue) exports() (all []Export, err error) {
	if err := d.ask(optList, nil); err != nil {
		return nil, err
	}
	for {
		kind, data, err := d.answer(optList)
		if err != nil {
			return nil, err
		}
		if kind == repAck {
			break
		}
		if kind != repServer || len(data) < 4 || uint64(binary.BigEndian.Uint32(data)) > uint64(len(data)-4) || len(all) == maxExports {
			return nil, fmt.Errorf("%w: reply %d, %d bytes, to LIST", ErrServer, kind, len(data))
		}
		all = append(all, Export{Name: string(data[4:][:binary.BigEndian.Uint32(data)])})
	}
	for i := range all {
		e, err := d.info(optInfo, all[i].Name)
		if errors.Is(err, ErrNoExport) {
			continue // it has gone meanwhile
		}
		if err != nil {
			return nil, err
		}
		all[i] = e
	}
	return all, d.ask(optAbort, nil)
}
