package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"pstorage/blockstore/block"
)

// negotiation is the handshake on one connection. It reads no byte beyond it.
type negotiation struct {
	catalog block.Catalog
	stream  io.ReadWriter
	ctx     context.Context
	option  uint32 // being answered
	out     []byte // its replies, not sent yet

	noZeroes bool
	claims   *claims
	history  map[string][]string // older states, of exports that were asked about
	security
	agreed
}

// agreed is what the client and the server have agreed on so far.
type agreed struct {
	structured bool
	extended   bool
	contextOf  string // the export that contexts were selected for
	selected   []metaContext
}

// agreement is what a negotiation ended with.
type agreement struct {
	terms
	secure   *tlsLink // nil: not encrypted
	claims   *claims
	device   block.Device
	info     block.VolumeInfo
	contexts []metaContext
}

// close gives up the export.
func (a *agreement) close() error {
	return errors.Join(closeContexts(a.contexts), a.device.Close())
}

// run negotiates until the client enters transmission, gives up (errAbort) or fails.
func (n *negotiation) run() (*agreement, error) {
	if err := n.greet(); err != nil {
		return nil, err
	}
	for range maxOptions {
		a, err := n.next()
		if a != nil || err != nil {
			return a, err
		}
	}
	return nil, fmt.Errorf("over %d options: %w", maxOptions, errLimit)
}

func (n *negotiation) greet() error {
	var b [18]byte
	binary.BigEndian.PutUint64(b[:], magicServer)
	binary.BigEndian.PutUint64(b[8:], magicOption)
	binary.BigEndian.PutUint16(b[16:], flagFixedNewstyle|flagNoZeroes)
	if _, err := n.stream.Write(b[:]); err != nil {
		return err
	}
	if _, err := io.ReadFull(n.stream, b[:4]); err != nil {
		return err
	}
	flags := binary.BigEndian.Uint32(b[:])
	if flags&^(flagFixedNewstyle|flagNoZeroes) != 0 {
		return fmt.Errorf("client flags %#x: %w", flags, errProtocol)
	}
	n.noZeroes, n.fixed = flags&flagNoZeroes != 0, flags&flagFixedNewstyle != 0
	return nil
}

// next answers one option. It returns an agreement when transmission begins.
func (n *negotiation) next() (*agreement, error) {
	var b [optionSize]byte
	if _, err := io.ReadFull(n.stream, b[:]); err != nil {
		return nil, err
	}
	if m := binary.BigEndian.Uint64(b[:]); m != magicOption {
		return nil, fmt.Errorf("option begins with %#x: %w", m, errProtocol)
	}
	n.option = binary.BigEndian.Uint32(b[8:])
	length := binary.BigEndian.Uint32(b[12:])
	if length > maxOptionData {
		return nil, n.refuseLong(length)
	}
	data := make([]byte, length)
	if _, err := io.ReadFull(n.stream, data); err != nil {
		return nil, err
	}
	a, err := n.answer(data)
	if err == nil || err == errAbort {
		if sendErr := n.send(); sendErr != nil && err == nil {
			err = sendErr
		}
	}
	if err != nil && a != nil {
		_ = a.close()
		a = nil
	}
	return a, err
}

func (n *negotiation) answer(data []byte) (*agreement, error) {
	if n.missing(n.option) {
		return nil, n.wantTLS()
	}
	switch n.option {
	case optExportName:
		return n.exportName(data)
	case optGo:
		return n.enter(data), nil
	case optAbort:
		n.reply(repAck, nil)
		return nil, errAbort
	case optInfo:
		n.info(data)
	case optList:
		return nil, n.list(data)
	case optStructuredReply:
		n.structuredReply(data)
	case optExtendedHeaders:
		n.extendedHeaders(data)
	case optListMetaContext:
		return nil, n.listContexts(data)
	case optSetMetaContext:
		n.setContexts(data)
	case optReplace:
		n.replace(data)
	case optStartTLS:
		return nil, n.startTLS(data)
	default:
		n.refuse(repErrUnsup, "unknown option")
	}
	return nil, nil
}

// refuseLong skips an option's data and refuses the option.
func (n *negotiation) refuseLong(length uint32) error {
	if length > maxOptionSkip || n.option == optExportName {
		return fmt.Errorf("option %d of %d bytes: %w", n.option, length, errLimit)
	}
	if _, err := io.CopyN(io.Discard, n.stream, int64(length)); err != nil {
		return err
	}
	if n.missing(n.option) {
		n.refuse(repErrTLSReqd, tlsFirst)
	} else {
		n.refuse(repErrTooBig, "option is too long")
	}
	return n.send()
}

const tlsFirst = "this server wants TLS first"

// wantTLS refuses an option that comes too early.
func (n *negotiation) wantTLS() error {
	if n.option == optExportName { // which cannot be refused
		return fmt.Errorf("export without TLS: %w", errProtocol)
	}
	n.refuse(repErrTLSReqd, tlsFirst)
	return nil
}

// reply appends one reply to the option.
func (n *negotiation) reply(kind uint32, data []byte) {
	n.out = binary.BigEndian.AppendUint64(n.out, magicReply)
	n.out = binary.BigEndian.AppendUint32(n.out, n.option)
	n.out = binary.BigEndian.AppendUint32(n.out, kind)
	n.out = binary.BigEndian.AppendUint32(n.out, uint32(len(data)))
	n.out = append(n.out, data...)
}

func (n *negotiation) refuse(kind uint32, text string) { n.reply(kind, []byte(clip(text))) }

func (n *negotiation) send() error {
	if len(n.out) == 0 {
		return nil
	}
	_, err := n.stream.Write(n.out)
	n.out = n.out[:0]
	return err
}
