package replication

import (
	"fmt"

	"pstorage/docs/model/search"
)

// packer writes a state's fields into a key, or reads them from one: one list of fields serves both, so that they cannot differ.
type packer struct {
	key     search.Key
	at      uint
	reading bool
	journal bool // servers have one
	losses  bool // clients are told of them
}

// num packs a number of some bits. Bits that do not fit are a mistake in the list of fields.
func (p *packer) num(v *uint8, width uint) {
	word, shift := p.at/64, p.at%64
	if shift+width > 64 {
		word, shift = word+1, 0
		p.at = 64 * word
	}
	p.at += width
	if p.reading {
		*v = uint8(p.key[word]>>shift) & (1<<width - 1)
		return
	}
	if *v>>width != 0 {
		panic(fmt.Sprintf("%d does not fit into %d bits", *v, width))
	}
	p.key[word] |= uint64(*v) << shift
}

func (p *packer) set(m *mask) { p.num((*uint8)(m), servers) }

func (p *packer) flag(b *bool) {
	var v uint8
	if *b {
		v = 1
	}
	p.num(&v, 1)
	*b = v == 1
}

const (
	bitsID      = 3
	bitsEpoch   = 2
	bitsVersion = 4
	bitsServer  = 2
)

func (p *packer) block(b *block) {
	for l := range b {
		p.num(&b[l], bitsID)
	}
}

func (p *packer) state(s *State) {
	p.num(&s.version, bitsVersion)
	p.num(&s.epoch, bitsEpoch)
	p.num(&s.top, 1)
	p.num(&s.settled, bitsEpoch)
	p.flag(&s.clean)
	if p.losses {
		p.num(&s.losses, 2)
	}
	for _, m := range []*mask{&s.insync, &s.sync, &s.suspects, &s.corrupt, &s.removing, &s.rebuild.raised} {
		p.set(m)
	}
	p.num(&s.rebuild.phase, 3)
	p.num(&s.rebuild.target, bitsServer)
	p.block(&s.rebuild.buffer)
	p.num(&s.repair.phase, 1)
	p.num(&s.repair.target, bitsServer)
	p.num(&s.repair.copy, bitsID)
	for i := range s.servers {
		p.server(&s.servers[i])
	}
	for i := range s.clients {
		p.client(&s.clients[i])
	}
	for i := range s.net {
		p.message(&s.net[i])
	}
	for _, id := range []*uint8{&s.floor, &s.safe, &s.frozen} {
		p.num(id, bitsID)
	}
	for i := range s.epochs[1:] {
		p.num(&s.epochs[1+i], bitsEpoch)
	}
	p.flag(&s.shown)
	p.flag(&s.spoilt)
	p.num(&s.fault, 4)
	p.used(&s.used)
}

func (p *packer) server(v *server) {
	for _, b := range []*bool{&v.up, &v.has, &v.open, &v.fresh[0], &v.fresh[1], &v.bad} {
		p.flag(b)
	}
	p.num(&v.role, 2)
	p.num(&v.suspect, 2)
	p.num(&v.fence, bitsEpoch)
	p.num(&v.version, bitsVersion)
	p.block(&v.value)
	p.block(&v.synced)
	p.num(&v.torn, bitsID)
	p.num(&v.tornLayer, 1)
	if p.journal {
		p.records(&v.log)
		p.records(&v.logSynced)
	}
}

func (p *packer) records(j *journal) {
	for l := range layers {
		p.num(&j.record[l], bitsID)
		p.flag(&j.stale[l])
	}
}

func (p *packer) client(c *client) {
	p.num(&c.phase, 3)
	p.num(&c.epoch, bitsEpoch)
	p.num(&c.version, bitsVersion)
	for _, m := range []*mask{&c.insync, &c.sync, &c.fenced, &c.acks, &c.dirty, &c.round} {
		p.set(m)
	}
	p.num(&c.layer, 1)
	p.num(&c.write, bitsID)
	p.num(&c.target, bitsID)
	p.num(&c.snap, 2)
	p.flag(&c.compare)
	p.flag(&c.recovery)
	p.flag(&c.flushing)
	if p.losses {
		p.num(&c.acked, bitsID)
		p.num(&c.covers, bitsID)
		p.num(&c.losses, 2)
		p.flag(&c.ackedLost)
		p.flag(&c.coverLost)
	}
}

func (p *packer) message(m *message) {
	p.num(&m.id, bitsID)
	p.num(&m.to, bitsServer)
	p.num(&m.epoch, bitsEpoch)
	p.num(&m.version, bitsVersion)
	p.num(&m.layer, 1)
	p.num(&m.from, 1)
}

func (p *packer) used(u *used) {
	p.num(&u.writes, bitsID)
	p.num(&u.leases, bitsEpoch)
	p.num(&u.crashes, 2)
	p.num(&u.power, 2)
	p.num(&u.rebuilds, 2)
	p.num(&u.rots, 2)
	p.num(&u.sweeps, 2)
	p.num(&u.failures, 1)
	p.num(&u.drops, 2)
	p.num(&u.takeovers, 1)
	p.num(&u.givenUp, 1)
}

// Encode implements search.System.
func (m *Model) Encode(s *State) search.Key {
	p := packer{journal: m.Journal, losses: m.Losses}
	p.state(s)
	return p.key
}

// Decode implements search.System.
func (m *Model) Decode(k search.Key) (s State) {
	p := packer{key: k, reading: true, journal: m.Journal, losses: m.Losses}
	p.state(&s)
	return s
}
