package leader

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
	"pstorage/meta/placement"
	"pstorage/meta/sessions"
	"pstorage/meta/topology"
)

const (
	// maxAllocate is the most chunks of one allocation.
	maxAllocate = 1024
	// prepareWait is how long a server may take to make new replicas before others are asked in its place.
	prepareWait = 2 * time.Second
	// allocateRounds is how often servers that failed are replaced.
	allocateRounds = 4
)

// allocation is one Allocate on its way: servers make the replicas first, then the state machine learns of them.
type allocation struct {
	leader  *Leader
	file    *fsm.File
	epoch   uint64
	missing map[uint32][]topology.Place // chunk -> servers that have a replica now
	where   map[uint32]topology.Place
	failed  map[uint32]bool // servers not to be asked again
	asked   []asked
	places  int
	done    bool // the replicas in missing are members
}

// asked is what one server was asked for in one round.
type asked struct {
	session     *sessions.Session
	preparation *sessions.Preparation
	indices     []uint32
}

// Allocate makes chunks that do not exist yet. The replicas are on the servers, durably, when it returns.
func (l *Leader) Allocate(ctx context.Context, in *metapb.AllocateRequest) (*metapb.AllocateReply, error) {
	if err := checkClient(in.Client); err != nil {
		return nil, Status(err)
	}
	if len(in.Indices) > maxAllocate {
		return nil, Status(invalid("%d chunks to allocate, at most %d", len(in.Indices), maxAllocate))
	}
	unlock, err := l.files.lock(ctx, in.File)
	if err != nil {
		return nil, Status(err)
	}
	defer unlock()
	a, err := l.newAllocation(in)
	if err == nil && len(a.missing) > 0 {
		err = a.run(ctx, in.Client.Id)
	}
	if err != nil {
		return nil, Status(err)
	}
	out := &metapb.AllocateReply{}
	err = l.View(func(v *fsm.View) error {
		out.Chunks, out.Servers = chunksOf(v, in.File, in.Indices), l.servers(v)
		return nil
	})
	return out, Status(err)
}

// newAllocation looks what is missing.
func (l *Leader) newAllocation(in *metapb.AllocateRequest) (a *allocation, err error) {
	a = &allocation{leader: l, epoch: in.Epoch, missing: map[uint32][]topology.Place{}, where: map[uint32]topology.Place{}, failed: map[uint32]bool{}}
	err = l.View(func(v *fsm.View) error {
		if a.file, err = v.File(in.File); err != nil {
			return err
		}
		if !isHolder(a.file.Node, in.Client, in.Epoch) {
			return fmt.Errorf("file %d, epoch %d: %w", in.File, in.Epoch, fsm.ErrNotHolder)
		}
		var c fsm.Chunk
		for _, i := range in.Indices {
			if uint64(i)*a.file.Policy.ChunkSize >= a.file.Node.Size {
				return invalid("%s has %d bytes, and no chunk %d", a.file.Path, a.file.Node.Size, i)
			}
			if !v.Chunk(fsm.ChunkKey{File: in.File, Index: i}, &c) {
				a.missing[i] = nil
			}
		}
		return nil
	})
	return a, err
}

// run finds servers for all, round by round, and commits.
func (a *allocation) run(ctx context.Context, client []byte) (err error) {
	defer func() { a.release(errors.Is(err, ErrDeposed)) }()
	for round := 0; round < allocateRounds; round++ {
		picks := a.pick()
		if len(picks) == 0 {
			break
		}
		a.prepare(ctx, picks)
	}
	for i, have := range a.missing {
		if len(have) < int(a.file.Policy.Min) {
			return a.shortage(i, len(have))
		}
	}
	return a.commit(ctx, client)
}

// shortage tells why a chunk did not get enough servers.
func (a *allocation) shortage(index uint32, have int) error {
	why := errTooFew
	if a.places >= int(a.file.Policy.Min) && len(a.failed) == 0 {
		why = errFull
	}
	return fmt.Errorf("chunk %d of %s: %w: %d of at least %d", index, a.file.Path, why, have, a.file.Policy.Min)
}

// pick chooses a server for each replica that is missing, by server.
func (a *allocation) pick() map[uint32][]uint32 {
	set := a.leader.Settings()
	all := slices.DeleteFunc(a.leader.sessions.Candidates(set), func(c placement.Candidate) bool { return a.failed[c.Server] })
	a.places = max(a.places, placement.Places(all, a.file.Policy.Domain))
	for _, c := range all {
		a.where[c.Server] = c.Place
	}
	want := placement.WantOf(a.file.Policy, set.StrictFailureDomain)
	picks := map[uint32][]uint32{}
	a.leader.roll(func(random *rand.Rand) {
		for _, i := range a.indices() {
			have := a.missing[i]
			need := int(a.file.Policy.Norm) - len(have)
			for _, s := range placement.Pick(all, need, want, have, random) {
				picks[s] = append(picks[s], i)
			}
		}
	})
	return picks
}

func (a *allocation) indices() (out []uint32) {
	for i := range a.missing {
		out = append(out, i)
	}
	slices.Sort(out)
	return out
}

// prepare asks all servers at once and waits for them.
func (a *allocation) prepare(ctx context.Context, picks map[uint32][]uint32) {
	ctx, cancel := context.WithTimeout(ctx, prepareWait)
	defer cancel()
	var all []asked
	for server, indices := range picks {
		s := a.leader.sessions.Get(server)
		if s == nil {
			a.failed[server] = true
			continue
		}
		all = append(all, asked{s, s.Prepare(a.chunks(indices)), indices})
	}
	a.asked = append(a.asked, all...)
	for _, p := range all {
		for i, err := range p.preparation.Wait(ctx) {
			if err != nil {
				a.leader.log.Warn("no replica was made", "server", p.session.ID, "file", a.file.ID, "chunk", p.indices[i], "error", err)
				a.failed[p.session.ID] = true
				continue
			}
			index := p.indices[i]
			a.missing[index] = append(a.missing[index], a.where[p.session.ID])
		}
	}
}

func (a *allocation) chunks(indices []uint32) (out []*metapb.PrepareChunk) {
	for _, i := range indices {
		out = append(out, &metapb.PrepareChunk{File: a.file.ID, Index: i, Blocks: a.file.Blocks(), Layers: a.file.Node.Layers, Epoch: a.epoch, Version: 1})
	}
	return out
}

func (a *allocation) commit(ctx context.Context, client []byte) error {
	c := &fsmpb.Allocate{File: a.file.ID, Epoch: a.epoch, Client: client}
	for _, i := range a.indices() {
		n := &fsmpb.NewChunk{Index: i}
		for _, t := range a.missing[i] {
			n.Servers = append(n.Servers, t.Server)
		}
		c.Chunks = append(c.Chunks, n)
	}
	r, err := propose[*fsm.Altered](ctx, a.leader, &fsmpb.Command{Command: &fsmpb.Command_Allocate{Allocate: c}})
	if err != nil {
		return err
	}
	for i := range r.Outcomes {
		if err := r.Outcomes[i].Err; err != nil && !errors.Is(err, fsm.ErrExists) {
			return err
		}
	}
	a.done = true
	return nil
}

// release ends the protection of what was prepared, once each server has answered. What did not become a member is removed again, unless
// it is not known whether it did: that is sorted out when the servers attach to the next leader.
func (a *allocation) release(deposed bool) {
	for _, p := range a.asked {
		var useless []fsm.ChunkKey
		for _, i := range p.indices {
			if !deposed && !(a.done && a.has(i, p.session.ID)) {
				useless = append(useless, fsm.ChunkKey{File: a.file.ID, Index: i})
			}
		}
		if len(useless) == 0 {
			p.preparation.Release()
			continue
		}
		go func() {
			p.preparation.Errs()
			p.preparation.Release()
			p.session.Remove(useless)
		}()
	}
}

func (a *allocation) has(index uint32, server uint32) bool {
	return slices.ContainsFunc(a.missing[index], func(t topology.Place) bool { return t.Server == server })
}
