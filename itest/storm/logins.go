package storm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"pstorage/itest/iscsi"
)

// Visitors are how many log in at a time.
const Visitors = 8

// keptOpen is how many logins a visitor leaves half way at a time. All together they are fewer than a target bears.
const keptOpen = 16

// visitor logs in and out.
type visitor struct {
	lab    *Lab
	name   string
	random *rand.Rand
	wait   time.Duration // for each cycle
	half   []*iscsi.Session
}

func (l *Lab) newVisitor(name string, seed uint64) *visitor {
	return &visitor{lab: l, name: name, random: rand.New(rand.NewPCG(seed, 1)), wait: patience}
}

// kind is one way to come and go.
type kind struct {
	name string
	do   func(*visitor, context.Context) error
}

var kinds = []kind{
	{"normal", (*visitor).normal},
	{"discovery", (*visitor).discovery},
	{"chap", (*visitor).right},
	{"mutual chap", (*visitor).mutual},
	{"wrong secret", (*visitor).wrong},
	{"no chap", (*visitor).stranger},
	{"left half way", (*visitor).halfWay},
	{"dropped", (*visitor).dropped},
	{"reinstated", (*visitor).reinstated},
}

// Kinds names the ways to come and go.
func Kinds() (names []string) {
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// Logins has visitors come and go, in all ways in turn, a number of times together.
func (l *Lab) Logins(ctx context.Context, cycles int, seed uint64) (took time.Duration, err error) {
	began := time.Now()
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for i := range Visitors {
		v := l.newVisitor(fmt.Sprint("visitor", i), seed+uint64(i))
		group.Go(func() error {
			defer v.leave()
			for n := next.Add(1); n <= int64(cycles) && ctx.Err() == nil; n = next.Add(1) {
				if err := v.cycle(ctx, kinds[int(n)%len(kinds)]); err != nil {
					return fmt.Errorf("cycle %d: %w", n, err)
				}
			}
			return ctx.Err()
		})
	}
	err = group.Wait()
	return time.Since(began), err
}

func (v *visitor) cycle(ctx context.Context, k kind) error {
	ctx, cancel := context.WithTimeout(ctx, v.wait)
	defer cancel()
	if err := k.do(v, ctx); err != nil {
		return fmt.Errorf("%s: %w", k.name, err)
	}
	return nil
}

// leave closes what was left half way.
func (v *visitor) leave() {
	for _, s := range v.half {
		_ = s.Close()
	}
	v.half = nil
}

// isid is one of a few: sessions of the same visitor replace each other now and then.
func (v *visitor) isid() byte { return byte(v.random.IntN(4)) }

func (v *visitor) options(d door) iscsi.Options {
	o := d.as(v.name, v.isid())
	o.HeaderDigest, o.DataDigest = v.random.IntN(2) == 0, v.random.IntN(2) == 0
	return o
}

// use logs in, reads something, and logs out.
func (v *visitor) use(ctx context.Context, d door, o iscsi.Options) error {
	s, err := iscsi.Login(ctx, d.address, o)
	if err != nil {
		return err
	}
	defer s.Close()
	data, err := s.Do(0, iscsi.Read16(v.random.Uint64N(1000), 8), nil, 8*sectorSize)
	if err == nil && len(data) != 8*sectorSize {
		err = fmt.Errorf("read %d bytes", len(data))
	}
	if err != nil {
		return err
	}
	return s.Logout()
}

func (v *visitor) normal(ctx context.Context) error {
	return v.use(ctx, v.lab.open, v.options(v.lab.open))
}

func (v *visitor) right(ctx context.Context) error {
	return v.use(ctx, v.lab.guarded, v.options(v.lab.guarded))
}

func (v *visitor) mutual(ctx context.Context) error {
	o := v.options(v.lab.guarded)
	o.TargetUser, o.TargetPass = "us", ours
	return v.use(ctx, v.lab.guarded, o)
}

// refused tries to log in where it must not come to that.
func (v *visitor) refused(ctx context.Context, o iscsi.Options) error {
	s, err := iscsi.Login(ctx, v.lab.guarded.address, o)
	switch {
	case err == nil:
		return errors.Join(errAdmitted, s.Close())
	case errors.Is(err, iscsi.ErrLogin):
		return nil
	}
	return err
}

func (v *visitor) wrong(ctx context.Context) error {
	o := v.options(v.lab.guarded)
	o.Secret = "not-" + o.Secret
	return v.refused(ctx, o)
}

func (v *visitor) stranger(ctx context.Context) error {
	o := v.options(v.lab.guarded)
	o.User = ""
	return v.refused(ctx, o)
}

func (v *visitor) discovery(ctx context.Context) error {
	d, seen := v.lab.open, v.lab.open.options.Target
	if v.random.IntN(2) == 0 {
		d, seen = v.lab.guarded, v.lab.guarded.options.Target
	}
	o := v.options(d)
	o.Target = ""
	s, err := iscsi.Login(ctx, d.address, o)
	if err != nil {
		return err
	}
	defer s.Close()
	text, err := s.Targets()
	if err == nil && !strings.Contains(text, seen) {
		err = fmt.Errorf("shown %q", text)
	}
	if err != nil {
		return err
	}
	return s.Logout()
}

// halfWay stops somewhere in a login, and closes that at once or some time later.
func (v *visitor) halfWay(ctx context.Context) error {
	d := v.lab.guarded
	if v.random.IntN(3) == 0 {
		d = v.lab.open
	}
	s, err := iscsi.Half(ctx, d.address, v.options(d), v.random.IntN(5), v.random.IntN(200))
	if err != nil {
		return err
	}
	if v.random.IntN(2) == 0 {
		return s.Close()
	}
	v.half = append(v.half, s)
	if len(v.half) > keptOpen {
		_ = v.half[0].Close()
		v.half = v.half[1:]
	}
	return nil
}

// dropped closes the connection with commands in flight, some of them with data that never comes.
func (v *visitor) dropped(ctx context.Context) error {
	s, err := iscsi.Login(ctx, v.lab.open.address, v.options(v.lab.open))
	if err != nil {
		return err
	}
	defer s.Close()
	return v.begin(s)
}

// begin sends some commands and awaits nothing.
func (v *visitor) begin(s *iscsi.Session) error {
	for range 1 + v.random.IntN(8) {
		blocks := uint32(1 + v.random.IntN(512))
		lba := v.random.Uint64N(lunSize/sectorSize - 512)
		var err error
		if v.random.IntN(2) == 0 {
			_, err = s.Command(scratch, iscsi.Write16(lba, blocks), make([]byte, blocks*sectorSize), 0)
		} else {
			_, err = s.Command(scratch, iscsi.Read16(lba, blocks), nil, int(blocks)*sectorSize)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

var (
	errAdmitted = errors.New("got in without the right secret")
	errAlive    = errors.New("a session that another has replaced lives on")
)

// reinstated logs in again as who is logged in already: the older session ends.
func (v *visitor) reinstated(ctx context.Context) error {
	o := v.options(v.lab.open)
	old, err := iscsi.Login(ctx, v.lab.open.address, o)
	if err != nil {
		return err
	}
	defer old.Close()
	if err := v.begin(old); err != nil {
		return err
	}
	if err := v.use(ctx, v.lab.open, o); err != nil {
		return err
	}
	for {
		_, err := old.Receive()
		switch {
		case err == nil:
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), isReset(err):
			return nil
		default:
			return fmt.Errorf("%w: %w", errAlive, err)
		}
	}
}
