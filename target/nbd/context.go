package nbd

import "encoding/binary"

// maxQueries in one option. Only one context exists, so more than a few are not asked in good faith.
const maxQueries = 1024

// listContexts tells which contexts there are, of those asked for.
func (n *negotiation) listContexts(data []byte) {
	_, queries, ok := n.parseContexts(data)
	if !ok {
		return
	}
	match := len(queries) == 0
	for _, q := range queries {
		match = match || q == contextAllocation || q == "base:"
	}
	if match {
		n.replyContext(0) // no meaning here
	}
	n.reply(repAck, nil)
}

// setContexts selects contexts for an export. What was selected before is forgotten, whatever comes of this.
func (n *negotiation) setContexts(data []byte) {
	n.selected, n.contextOf = false, ""
	export, queries, ok := n.parseContexts(data)
	if !ok {
		return
	}
	for _, q := range queries {
		n.selected = n.selected || q == contextAllocation
	}
	if n.selected {
		n.contextOf = export
		n.replyContext(contextAllocationID)
	}
	n.reply(repAck, nil)
}

func (n *negotiation) replyContext(id uint32) {
	b := binary.BigEndian.AppendUint32(nil, id)
	n.reply(repMetaContext, append(b, contextAllocation...))
}

// parseContexts decodes the data of both options. If it cannot be right it refuses the option.
func (n *negotiation) parseContexts(data []byte) (export string, queries []string, ok bool) {
	if !n.structured {
		n.refuse(repErrInvalid, "structured replies must be negotiated first")
		return "", nil, false
	}
	export, queries, ok = cutQueries(data)
	if !ok {
		n.refuse(repErrInvalid, "malformed queries for metadata contexts")
		return "", nil, false
	}
	if len(queries) > maxQueries {
		n.refuse(repErrTooBig, "too many queries for metadata contexts")
		return "", nil, false
	}
	if _, err := n.lookup(export); err != nil {
		n.refuseExport(export, err)
		return "", nil, false
	}
	return export, queries, true
}

func cutQueries(data []byte) (export string, queries []string, ok bool) {
	name, rest, ok := cutString(data)
	if !ok || !validName(name) || len(rest) < 4 {
		return "", nil, false
	}
	count := binary.BigEndian.Uint32(rest)
	rest = rest[4:]
	for range count {
		var q []byte
		if q, rest, ok = cutString(rest); !ok || !validName(q) {
			return "", nil, false
		}
		queries = append(queries, string(q))
	}
	return string(name), queries, len(rest) == 0
}
