package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"

	"pstorage/blockstore/block"
)

const (
	// maxQueries in one option. More than a few are not asked in good faith.
	maxQueries = 1024
	// maxContexts that a connection may select: each is looked up by every BLOCK_STATUS that does not say otherwise.
	maxContexts = 16
)

// metaContext is one that a client has selected. Its number is its place among those, from 1 on.
type metaContext struct {
	name    string
	changes block.Changes // nil: it is base:allocation
}

// contextSet is some of the contexts of a connection, by their places.
type contextSet uint32

const allContexts = contextSet(1<<maxContexts - 1)

func (s contextSet) has(place int) bool { return s>>place&1 != 0 }

// olderThan names the older state that a context tells the changes since; ok is false if it is of another kind.
func olderThan(context string) (older string, ok bool) {
	if older, ok = strings.CutPrefix(context, contextBitmap); !ok {
		older, ok = strings.CutPrefix(context, contextChanged)
	}
	return older, ok && older != ""
}

// matches tells whether a query of LIST_META_CONTEXT asks for the context: by its name, or by how names like it begin.
func matches(query, context string) bool {
	return query == context || strings.HasSuffix(query, ":") && strings.HasPrefix(context, query)
}

// listContexts tells which contexts there are, of those asked for.
func (n *negotiation) listContexts(data []byte) error {
	export, queries, ok := n.parseContexts(data)
	if !ok {
		return nil
	}
	all := []string{contextAllocation}
	if len(queries) == 0 || slices.ContainsFunc(queries, func(q string) bool { return !strings.HasPrefix(q, "base:") }) {
		for _, older := range n.older(export) {
			all = append(all, contextBitmap+older, contextChanged+older)
		}
	}
	for _, name := range all {
		if len(queries) > 0 && !slices.ContainsFunc(queries, func(q string) bool { return matches(q, name) }) {
			continue
		}
		n.replyContext(0, name) // the number has no meaning here
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

// setContexts selects contexts for an export. What was selected before is forgotten, whatever comes of this.
func (n *negotiation) setContexts(data []byte) {
	n.selected, n.contextOf = nil, ""
	export, queries, ok := n.parseContexts(data)
	if !ok {
		return
	}
	for _, q := range queries {
		chosen := slices.ContainsFunc(n.selected, func(c metaContext) bool { return c.name == q })
		if len(n.selected) == maxContexts || chosen || !n.known(export, q) {
			continue
		}
		n.selected = append(n.selected, metaContext{name: q})
		n.replyContext(uint32(len(n.selected)), q)
	}
	if len(n.selected) > 0 {
		n.contextOf = export
	}
	n.reply(repAck, nil)
}

// known tells whether the export has the context.
func (n *negotiation) known(export, context string) bool {
	older, ok := olderThan(context)
	if !ok {
		return context == contextAllocation
	}
	return slices.Contains(n.older(export), older)
}

// older names the older states of an export, as far as the catalog knows any. They are asked for once: negotiations are short.
func (n *negotiation) older(export string) []string {
	if n.history == nil {
		n.history = map[string][]string{}
	}
	all, asked := n.history[export]
	if h, ok := n.catalog.(block.Historian); ok && !asked {
		all, _ = h.Older(n.ctx, export) // who cannot be asked knows of none
		n.history[export] = all
	}
	return all
}

// openContexts gives access to what the contexts selected tell.
func (n *negotiation) openContexts() ([]metaContext, error) {
	all := slices.Clone(n.selected)
	for i := range all {
		older, ok := olderThan(all[i].name)
		if !ok {
			continue
		}
		var err error
		if all[i].changes, err = n.catalog.(block.Historian).Since(n.ctx, n.contextOf, older); err != nil {
			return nil, errors.Join(err, closeContexts(all[:i]))
		}
	}
	return all, nil
}

func closeContexts(all []metaContext) (err error) {
	for _, c := range all {
		if c.changes != nil {
			err = errors.Join(err, c.changes.Close())
		}
	}
	return err
}

// states asks the context what a range is like.
func (m *metaContext) states(ctx context.Context, d block.Device, offset, length int64, most int) ([]statusRun, error) {
	if m.changes == nil {
		extents, err := d.Extents(ctx, offset, length, most)
		return allocationRuns(extents), err
	}
	changes, err := m.changes.Changed(ctx, offset, length, most)
	return changeRuns(changes, strings.HasPrefix(m.name, contextChanged)), err
}

func (n *negotiation) replyContext(id uint32, name string) {
	b := binary.BigEndian.AppendUint32(nil, id)
	n.reply(repMetaContext, append(b, name...))
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
