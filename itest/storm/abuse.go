package storm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"

	"pstorage/itest/iscsi"
	"pstorage/itest/scenario"
)

// How a LUN is divided. The last LUN is scratch: what is written there is not verified.
const (
	scratch      = luns - 1
	sharedSector = 0
	usersEach    = 2 // users of each LUN but the scratch one
	regionStart  = 4096
	regionStep   = 32768
)

// Abuse is the users with their regions, and those who trouble them.
type Abuse struct {
	Counts
	lab    *Lab
	seed   uint64
	users  []*user
	shared [scratch]tally
	bouts  uint64 // so far
}

// NewAbuse makes the users.
func (l *Lab) NewAbuse(seed uint64) *Abuse {
	a := &Abuse{lab: l, seed: seed}
	for lun := range scratch {
		for i := range usersEach {
			n := uint64(lun*usersEach + i)
			a.users = append(a.users, &user{
				lab: l, name: fmt.Sprint("user", n), random: rand.New(rand.NewPCG(seed, n)), counts: &a.Counts, shared: &a.shared[lun],
				region: newRegion(lun, regionStart+uint64(i)*regionStep, slots*slotSectors, n+1), inFlight: map[uint32]*command{},
			})
		}
	}
	return a
}

// bully is what troubles the target and its users. What it does once is a bout; errors of its own connections are none of the target's.
type bully struct {
	*Abuse
	random *rand.Rand
	v      *visitor
}

// Run has everybody at it for some time. It may be done again.
func (a *Abuse) Run(ctx context.Context, time time.Duration) error {
	timed, cancel := context.WithTimeout(ctx, time)
	defer cancel()
	group, timed := errgroup.WithContext(timed)
	for _, u := range a.users {
		group.Go(func() error { return u.run(timed) })
	}
	for i, bout := range []func(*bully, context.Context) error{(*bully).reset, (*bully).cut, (*bully).crawl, (*bully).babble, (*bully).come} {
		a.bouts++
		b := &bully{Abuse: a, random: rand.New(rand.NewPCG(a.seed, 1000+a.bouts))}
		b.v = a.lab.newVisitor(fmt.Sprint("bully", i), a.seed+a.bouts)
		b.v.wait = boutTime
		group.Go(func() error { return b.run(timed, bout) })
	}
	return errors.Join(group.Wait(), ctx.Err())
}

// boutTime bounds a bout: commands that somebody's reset has cleared are never answered.
const boutTime = 3 * time.Second

func (b *bully) run(ctx context.Context, bout func(*bully, context.Context) error) error {
	defer b.v.leave()
	for ctx.Err() == nil {
		if err := bout(b, ctx); err != nil {
			return err
		}
		if scenario.Wait(ctx, rand.N(300*time.Millisecond)) != nil {
			return nil
		}
	}
	return nil
}

// reset does one of the task management functions that concern others, and awaits its answer.
func (b *bully) reset(ctx context.Context) error {
	s, err := b.lab.enter(ctx, "resetter")
	if errors.Is(err, errEnd) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("resetter: %w", err)
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	function := [...]byte{iscsi.ResetLUN, iscsi.ResetLUN, iscsi.ResetLUN, iscsi.ResetLUN, iscsi.ClearTaskSet, iscsi.ClearTaskSet, iscsi.ClearTaskSet,
		iscsi.ResetWarm, iscsi.ResetWarm, iscsi.ResetCold}[b.random.IntN(10)]
	tag, err := s.Manage(function, b.random.IntN(luns), reserved)
	for err == nil {
		var p iscsi.PDU
		if p, err = s.Receive(); err == nil && p.Opcode() == 0x22 && p.Tag() == tag {
			b.Resets.Add(1)
			if p.Header[2] != 0 {
				return fmt.Errorf("task management function %d: response %d", function, p.Header[2])
			}
			return nil
		}
	}
	return fmt.Errorf("task management function %d is not answered: %w", function, err)
}

// cut leaves in the middle of a transfer.
func (b *bully) cut(ctx context.Context) error {
	s, err := b.lab.enter(ctx, "cutter")
	if err != nil {
		return nil
	}
	defer s.Close()
	b.Dropped.Add(1)
	_ = s.SetDeadline(time.Now().Add(boutTime))
	if b.v.begin(s) == nil {
		_ = s.Cut(scratch, iscsi.Write16(b.random.Uint64N(1000), 128), make([]byte, 128*sectorSize), b.random.IntN(70000))
	}
	return nil
}

// crawl asks for a lot, and takes next to nothing.
func (b *bully) crawl(ctx context.Context) error {
	s, err := b.lab.enter(ctx, "crawler")
	if err != nil {
		return nil
	}
	defer s.Close()
	b.Slow.Add(1)
	_ = s.SetDeadline(time.Now().Add(boutTime))
	for range 32 {
		if _, err := s.Command(b.random.IntN(luns), iscsi.Read16(b.random.Uint64N(lunSize/sectorSize-2048), 2048), nil, 2048*sectorSize); err != nil {
			return nil
		}
	}
	for range b.random.IntN(100) {
		if _, err := s.Take(make([]byte, 100)); err != nil || scenario.Wait(ctx, 20*time.Millisecond) != nil {
			return nil
		}
	}
	return nil
}

// come logs in or out in any way. What comes of it depends on the resets of others; that nobody gets in who must not does not.
func (b *bully) come(ctx context.Context) error {
	b.Logins.Add(1)
	if err := b.v.cycle(ctx, kinds[b.random.IntN(len(kinds))]); errors.Is(err, errAdmitted) {
		return err
	}
	return nil
}

// babble sends garbage, logged in to a target that nobody else uses, or without.
func (b *bully) babble(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, boutTime)
	defer cancel()
	b.Garbage.Add(1)
	d := b.lab.trash
	requests := b.random.IntN(4)
	s, err := iscsi.Half(ctx, d.address, d.as("babbler", 1), requests, 0)
	if err != nil {
		return nil
	}
	defer s.Close()
	for range 1 + b.random.IntN(20) {
		if s.Send(b.nonsense()) != nil {
			return nil
		}
	}
	_ = s.SetDeadline(time.Now().Add(100 * time.Millisecond))
	for err == nil {
		_, err = s.Take(make([]byte, 4096))
	}
	return nil
}

// nonsense is a PDU of which everything is random, or something, or nothing but its length.
func (b *bully) nonsense() []byte {
	n := b.random.IntN(512) &^ 3
	p := make([]byte, 48+n)
	for i := range p {
		p[i] = byte(b.random.Uint32())
	}
	if b.random.IntN(3) == 0 {
		return p
	}
	opcodes := []byte{0x43, 0x00, 0x40, 0x01, 0x41, 0x02, 0x42, 0x04, 0x44, 0x05, 0x06, 0x46, 0x10, 0x7f}
	p[0], p[4] = opcodes[b.random.IntN(len(opcodes))], 0
	binary.BigEndian.PutUint32(p[4:], uint32(n))
	if b.random.IntN(2) == 0 {
		copy(p[8:16], make([]byte, 8))                              // a LUN that there is
		p[9] = 1                                                    // its number
		binary.BigEndian.PutUint32(p[24:], 1)                       // a CmdSN that is next
		binary.BigEndian.PutUint32(p[20:], b.random.Uint32N(1<<20)) // a length, or a tag
	}
	return p
}
