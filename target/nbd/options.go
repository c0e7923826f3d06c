package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"pstorage/blockstore/block"
)

// lookuper is a catalog that knows a quicker way to one volume's description than List.
type lookuper interface {
	Lookup(ctx context.Context, name string) (block.VolumeInfo, error)
}

// exportName enters transmission without a chance to say why it cannot.
func (n *negotiation) exportName(data []byte) (*agreement, error) {
	if !validName(data) || n.extended { // who knows extended headers has no use for this option, says the standard
		return nil, fmt.Errorf("name of an export: %w", errProtocol)
	}
	a, err := n.open(string(data))
	if err != nil {
		return nil, fmt.Errorf("export %q: %w", data, err)
	}
	n.out = binary.BigEndian.AppendUint64(n.out, exportSize(a.device.Size()))
	n.out = binary.BigEndian.AppendUint16(n.out, transmissionFlags(a.terms))
	if !n.noZeroes {
		n.out = append(n.out, make([]byte, 124)...)
	}
	return a, nil
}

// enter is NBD_OPT_GO.
func (n *negotiation) enter(data []byte) *agreement {
	name, wanted, ok := parseInfo(data)
	if !ok {
		n.refuse(repErrInvalid, "malformed request for an export")
		return nil
	}
	a, err := n.open(name)
	if err != nil {
		n.refuseExport(name, err)
		return nil
	}
	n.describe(a.info.Name, a.device.Size(), a.terms, wanted)
	return a
}

// info is NBD_OPT_INFO. It does not open the volume: to look is not to take the lease.
func (n *negotiation) info(data []byte) {
	name, wanted, ok := parseInfo(data)
	if !ok {
		n.refuse(repErrInvalid, "malformed request for an export")
		return
	}
	v, err := n.lookup(name)
	if err != nil {
		n.refuseExport(name, err)
		return
	}
	n.describe(v.Name, v.Size, n.termsOf(name, v), wanted)
}

// open gives access to the export, on the terms negotiated so far.
func (n *negotiation) open(name string) (*agreement, error) {
	device, info, err := n.catalog.Open(n.ctx, name)
	if err != nil {
		return nil, err
	}
	a := &agreement{terms: n.termsOf(name, info), device: device, info: info}
	if a.terms.contexts > 0 {
		if a.contexts, err = n.openContexts(); err != nil {
			return nil, errors.Join(err, device.Close())
		}
	}
	return a, nil
}

func (n *negotiation) termsOf(name string, v block.VolumeInfo) terms {
	t := terms{structured: n.structured, extended: n.extended, readOnly: v.ReadOnly}
	if n.structured && n.contextOf == name {
		t.contexts = len(n.selected)
	}
	return t
}

func (n *negotiation) lookup(name string) (block.VolumeInfo, error) {
	if l, ok := n.catalog.(lookuper); ok {
		return l.Lookup(n.ctx, name)
	}
	all, err := n.catalog.List(n.ctx)
	if err != nil {
		return block.VolumeInfo{}, err
	}
	for _, v := range all {
		if v.Name == name {
			return v, nil
		}
	}
	return block.VolumeInfo{}, block.ErrNotFound
}

// describe answers INFO and GO.
func (n *negotiation) describe(name string, size int64, t terms, wanted []uint16) {
	b := binary.BigEndian.AppendUint16(nil, infoExport)
	b = binary.BigEndian.AppendUint64(b, exportSize(size))
	n.reply(repInfo, binary.BigEndian.AppendUint16(b, transmissionFlags(t)))
	if slices.Contains(wanted, infoName) {
		b = binary.BigEndian.AppendUint16(b[:0], infoName)
		n.reply(repInfo, append(b, name...))
	}
	if slices.Contains(wanted, infoBlockSize) {
		b = binary.BigEndian.AppendUint16(b[:0], infoBlockSize)
		b = binary.BigEndian.AppendUint32(b, minimumBlock)
		b = binary.BigEndian.AppendUint32(b, preferredBlock)
		n.reply(repInfo, binary.BigEndian.AppendUint32(b, block.MaxTransfer))
	}
	n.reply(repAck, nil)
}

// refuseExport says that the export cannot be had, and why.
func (n *negotiation) refuseExport(name string, err error) {
	n.out = n.out[:0]
	switch {
	case name == "":
		n.refuse(repErrUnknown, "there is no default export: give the name of a volume")
	case errors.Is(err, errShutdown), errors.Is(err, block.ErrClosed):
		n.refuse(repErrShutdown, "server is shutting down")
	default:
		n.refuse(repErrUnknown, fmt.Sprintf("volume %q: %v", name, err))
	}
}

func (n *negotiation) list(data []byte) error {
	if len(data) > 0 {
		n.refuse(repErrInvalid, "option takes no data")
		return nil
	}
	all, err := n.catalog.List(n.ctx)
	if err != nil {
		n.refuse(repErrPolicy, fmt.Sprintf("listing volumes: %v", err))
		return nil
	}
	for _, v := range all {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(v.Name)))
		n.reply(repServer, append(b, v.Name...))
		if len(n.out) < maxOptionData {
			continue
		}
		if err := n.send(); err != nil {
			return err
		}
	}
	n.reply(repAck, nil)
	return nil
}

func (n *negotiation) structuredReply(data []byte) {
	switch {
	case len(data) > 0:
		n.refuse(repErrInvalid, "option takes no data")
	case n.extended:
		n.refuse(repErrExtended, "extended headers have been negotiated")
	default:
		n.structured = true
		n.reply(repAck, nil)
	}
}

func (n *negotiation) extendedHeaders(data []byte) {
	if len(data) > 0 {
		n.refuse(repErrInvalid, "option takes no data")
		return
	}
	n.structured, n.extended = true, true
	n.reply(repAck, nil)
}

// parseInfo decodes the data of INFO and GO: name and information wanted.
func parseInfo(data []byte) (name string, wanted []uint16, ok bool) {
	nameBytes, rest, ok := cutString(data)
	if !ok || !validName(nameBytes) || len(rest) < 2 {
		return "", nil, false
	}
	count := int(binary.BigEndian.Uint16(rest))
	if rest = rest[2:]; len(rest) != 2*count {
		return "", nil, false
	}
	for ; len(rest) > 0; rest = rest[2:] {
		wanted = append(wanted, binary.BigEndian.Uint16(rest))
	}
	return string(nameBytes), wanted, true
}

// cutString splits off a string with its length before it.
func cutString(b []byte) (s, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := binary.BigEndian.Uint32(b)
	if b = b[4:]; uint64(n) > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n], b[n:], true
}

func validName(b []byte) bool {
	return len(b) <= maxString && utf8.Valid(b) && !strings.ContainsRune(string(b), 0)
}

func transmissionFlags(t terms) uint16 {
	f := uint16(flagHasFlags | flagSendFlush | flagSendFUA | flagSendTrim | flagSendWriteZeroes | flagCanMultiConn | flagSendCache | flagSendFastZero)
	if t.readOnly {
		f |= flagReadOnly
	}
	if t.structured {
		f |= flagSendDF
	}
	if t.extended && t.contexts > 0 {
		f |= flagStatusPayload
	}
	return f
}

// exportSize is the size announced: what can be reached with whole minimum blocks.
func exportSize(size int64) uint64 { return uint64(size) / minimumBlock * minimumBlock }
