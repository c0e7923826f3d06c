package fsm

import (
	"fmt"
	"slices"
	"strings"

	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/topology"
)

// Policy is what holds for a file: its own attributes, else those of the nearest directory that has them, else the defaults.
type Policy struct {
	Norm, Min uint32
	Domain    string
	ChunkSize uint64
	Tier      uint32
}

// Defaults of the attributes.
var defaults = fsmpb.Attributes{Norm: 3, Min: 2, FailureDomain: topology.Host, ChunkSize: DefaultChunkSize, Tier: 1}

func checkAttributes(a *fsmpb.Attributes) error {
	switch {
	case a.GetNorm() > MaxReplicas || a.GetMin() > MaxReplicas,
		a.GetNorm() != 0 && a.GetMin() > a.GetNorm(),
		(a.GetNorm() == 0) != (a.GetMin() == 0):
		return fmt.Errorf("replicas %d:%d: norm and min go from 1 to %d, norm not under min: %w", a.GetNorm(), a.GetMin(), MaxReplicas, ErrInvalid)
	case a.GetFailureDomain() != "" && !slices.Contains(topology.Domains, a.GetFailureDomain()):
		return fmt.Errorf("failure-domain %q: it is %s: %w", shorten(a.GetFailureDomain()), strings.Join(topology.Domains, ", "), ErrInvalid)
	case a.GetTier() > Tiers:
		return fmt.Errorf("tier %d: it is 0 to 3: %w", a.GetTier()-1, ErrInvalid)
	}
	if c := a.GetChunkSize(); c != 0 && (c < MinChunkSize || c > MaxChunkSize || c&(c-1) != 0) {
		return fmt.Errorf("chunk-size %d: it is a power of two from 1 MiB to 256 MiB: %w", c, ErrInvalid)
	}
	return nil
}

// inherit fills what a leaves open from b.
func inherit(a, b *fsmpb.Attributes) {
	if a.Norm == 0 && b.GetNorm() != 0 {
		a.Norm, a.Min = b.Norm, b.Min
	}
	if a.FailureDomain == "" {
		a.FailureDomain = b.GetFailureDomain()
	}
	if a.ChunkSize == 0 {
		a.ChunkSize = b.GetChunkSize()
	}
	if a.Tier == 0 {
		a.Tier = b.GetTier()
	}
}

// override puts what b says over a.
func override(a, b *fsmpb.Attributes) *fsmpb.Attributes {
	out := &fsmpb.Attributes{}
	inherit(out, b)
	inherit(out, a)
	return out
}

// policyFrom computes a policy along the way up from a node that may not be stored yet.
func (tx *txn) policyFrom(own *fsmpb.Attributes, parent uint64) Policy {
	a := &fsmpb.Attributes{}
	inherit(a, own)
	for depth := 0; parent != 0; depth++ {
		n := tx.node(parent)
		if n == nil || depth > MaxDepth {
			tx.fail(fmt.Errorf("node %d has no way to the root: %w", parent, ErrCorrupt))
			break
		}
		inherit(a, n.Own)
		parent = n.Parent
	}
	inherit(a, &defaults)
	return Policy{Norm: a.Norm, Min: a.Min, Domain: a.FailureDomain, ChunkSize: a.ChunkSize, Tier: a.Tier}
}

// policy returns what holds for a node that exists; for a former, what holds for the file that has its name. A file's chunk size is what it was made with.
func (tx *txn) policy(id uint64, n *fsmpb.Node) Policy {
	if p, ok := tx.policies[id]; ok {
		return p
	}
	own := n.Own
	if named := tx.node(n.FormerOf); n.FormerOf != 0 && named != nil {
		own = named.Own
	}
	p := tx.policyFrom(own, n.Parent)
	if n.ChunkSize != 0 {
		p.ChunkSize = n.ChunkSize
	}
	tx.policies[id] = p
	return p
}

// setAttributes changes what a node says itself, and files the chunks of all files under it anew.
func (tx *txn) setAttributes(c *fsmpb.SetAttributes) (*File, error) {
	id, _, _, err := tx.walk(c.Path)
	if err != nil {
		return nil, err
	}
	n := tx.node(id)
	if n == nil {
		return nil, fmt.Errorf("%s: %w", c.Path, ErrNotFound)
	}
	if err := checkAttributes(c.Attributes); err != nil {
		return nil, err
	}
	if size := c.Attributes.GetChunkSize(); !n.Directory && size != 0 && size != n.ChunkSize {
		return nil, fmt.Errorf("%s: the chunk size of a file is fixed: %w", c.Path, ErrInvalid)
	}
	files := tx.filesUnder(id, n)
	old := map[uint64]Policy{}
	for _, f := range files {
		old[f] = tx.policy(f, tx.node(f))
	}
	n.Own = override(n.Own, c.Attributes)
	tx.putNode(id, n)
	clear(tx.policies)
	for _, f := range files {
		if now := tx.policy(f, tx.node(f)); now.Norm != old[f].Norm || now.Min != old[f].Min {
			tx.reweigh(f, old[f], now)
		}
	}
	return tx.file(id, n), nil
}

// filesUnder returns the files of a subtree, formers among them, in order.
func (tx *txn) filesUnder(id uint64, n *fsmpb.Node) (files []uint64) {
	if !n.Directory {
		return tx.statesOf(id)
	}
	for _, key := range keysWith(tx.names, nodeKey(id)) {
		child := number(tx.names.Get(key))
		if cn := tx.node(child); cn != nil {
			files = append(files, tx.filesUnder(child, cn)...)
		}
	}
	return files
}

// reweigh counts a file's chunks under its new policy.
func (tx *txn) reweigh(file uint64, old, now Policy) {
	var total Counts
	var c Chunk
	for _, key := range keysWith(tx.chunks, nodeKey(file)) {
		k := chunkKeyOf(key)
		if !tx.chunk(k, &c) {
			return
		}
		_, watched := weigh(&c, old)
		n, watch := weigh(&c, now)
		total.add(n)
		switch {
		case watch && !watched:
			tx.put(tx.watch, k.watchBytes(len(c.Insync)), nil)
		case watched && !watch:
			tx.delete(tx.watch, k.watchBytes(len(c.Insync)))
		}
	}
	tx.changed[file] = total
}
