package storm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"pstorage/itest/iscsi"
	"pstorage/itest/scenario"
)

const (
	// slotSectors is the longest transfer: several bursts, so that data are asked for.
	slotSectors = 1024
	slots       = 12
	// silence is how long nothing comes until what is in flight is aborted: it was cleared by somebody's reset, or is slow.
	silence = 200 * time.Millisecond
)

// user writes and reads a region, verifies it, and bears whatever happens.
type user struct {
	lab    *Lab
	name   string
	random *rand.Rand
	counts *Counts
	shared *tally // of the LUN
	region *region

	s        *iscsi.Session
	inFlight map[uint32]*command
	slot     [slots]bool // taken by a command
	counting bool        // a command on the shared sector is in flight
	seen     uint64      // there
}

// action is what a command is for.
type action int

const (
	reading action = iota
	writing
	unmapping
	comparing
	counting // COMPARE AND WRITE of the shared sector
	looking  // reads it
	asking   // TEST UNIT READY
)

// command is one in flight.
type command struct {
	action
	slot, at, sectors int
	version           uint32
	data              []byte // that was read
}

func (c *command) changes() bool { return c.action >= writing && c.action <= comparing }

// gone tells errors of a connection that the target, or a reset of the target, has ended.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || isReset(err)
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// run goes on until the context ends; then everything begun is ended.
func (u *user) run(ctx context.Context) error {
	for ctx.Err() == nil {
		switch err := u.step(ctx); {
		case gone(err):
			u.counts.Cut.Add(1)
			u.drop()
		case errors.Is(err, errEnd):
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", u.name, err)
		}
	}
	u.drop()
	return nil
}

// step does one thing: to send, to abort, to leave, or to wait for what comes.
func (u *user) step(ctx context.Context) error {
	if u.s == nil {
		return u.login(ctx)
	}
	if err := u.s.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	switch n := u.random.IntN(2000); {
	case n == 0:
		u.counts.Dropped.Add(1)
		u.drop()
		return nil
	case n < 20:
		return u.abortSome()
	case n < 25:
		return u.abortSet()
	case n < 1000 && len(u.inFlight) < slots:
		return u.send()
	}
	return u.take()
}

// login logs in, again if need be: it ends the session before, and with it all that was begun there.
func (u *user) login(ctx context.Context) error {
	s, err := u.lab.enter(ctx, u.name)
	if err != nil {
		return err
	}
	u.s = s
	for tag, c := range u.inFlight {
		u.lose(tag, c)
	}
	return nil
}

// enter logs in to the open target, as soon as a target that is being reset has it.
func (l *Lab) enter(ctx context.Context, name string) (*iscsi.Session, error) {
	for limit := time.Now().Add(patience); ; {
		inner, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
		s, err := iscsi.Login(inner, l.open.address, l.open.as(name, 1))
		cancel()
		if err == nil || !gone(err) || time.Now().After(limit) {
			return s, err
		}
		if err := scenario.Wait(ctx, 10*time.Millisecond); err != nil {
			return nil, fmt.Errorf("%w: %w", errEnd, err)
		}
	}
}

// errEnd: the run ends while somebody logs in.
var errEnd = errors.New("the end")

// drop closes the connection. What is in flight is known to have ended only after the next login.
func (u *user) drop() {
	if u.s != nil {
		_ = u.s.Close()
		u.s = nil
	}
}

// lose takes a command that ended in nobody knows what.
func (u *user) lose(tag uint32, c *command) {
	u.counts.Unsure.Add(1)
	if c.changes() {
		u.region.unsure(c.at, c.sectors, c.version)
	}
	if c.action == counting {
		u.shared.unsure.Add(1)
	}
	u.end(tag, c)
}

// end forgets a command.
func (u *user) end(tag uint32, c *command) {
	delete(u.inFlight, tag)
	if c.action == counting || c.action == looking {
		u.counting = false
	} else {
		u.slot[c.slot] = false
	}
}

// take waits for what comes. When nothing does, what is in flight is aborted.
func (u *user) take() error {
	if len(u.inFlight) == 0 {
		return nil
	}
	some, err := u.s.Ready(silence)
	if err != nil {
		return err
	}
	if !some {
		for tag := range u.inFlight {
			if err := u.abort(tag); err != nil {
				return err
			}
		}
		return nil
	}
	p, ours, err := u.s.Next() // what asks for data may be the last that comes
	if err != nil || !ours {
		return err
	}
	return u.handle(p)
}

// abort ends one command that may have been answered or cleared already.
func (u *user) abort(tag uint32) error {
	c := u.inFlight[tag]
	if c == nil {
		return nil
	}
	if _, err := u.manage(iscsi.AbortTask, tag); err != nil {
		return err
	}
	if u.inFlight[tag] == c {
		u.lose(tag, c)
	}
	return nil
}

func (u *user) abortSome() error {
	for tag := range u.inFlight {
		if u.random.IntN(2) == 0 {
			return u.abort(tag)
		}
	}
	return nil
}

func (u *user) abortSet() error {
	done, err := u.manage(iscsi.AbortTaskSet, reserved)
	if err != nil {
		return err
	}
	if done != 0 {
		return fmt.Errorf("ABORT TASK SET: response %d", done)
	}
	for tag, c := range u.inFlight {
		u.lose(tag, c)
	}
	return nil
}

const reserved = 0xffffffff

// manage does a task management function and returns the response.
func (u *user) manage(function byte, referenced uint32) (response byte, err error) {
	u.counts.Managed.Add(1)
	tag, err := u.s.Manage(function, u.region.lun, referenced)
	if err != nil {
		return 0, err
	}
	for {
		p, err := u.s.Receive()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("task management function %d is not answered within %v: %w", function, patience, err)
		}
		if err != nil {
			return 0, err
		}
		if p.Opcode() == 0x22 && p.Tag() == tag {
			return p.Header[2], nil
		}
		if err := u.handle(p); err != nil {
			return 0, err
		}
	}
}

// handle takes a PDU about a command.
func (u *user) handle(p iscsi.PDU) error {
	c := u.inFlight[p.Tag()]
	switch op := p.Opcode(); {
	case op == 0x32: // an asynchronous message: the connection ends soon
		return nil
	case c == nil && (op == 0x21 || op == 0x25):
		return fmt.Errorf("an answer to tag %d, which has ended", p.Tag())
	case op == 0x25:
		at := int(binary.BigEndian.Uint32(p.Header[40:]))
		if at+len(p.Data) > len(c.data) {
			return fmt.Errorf("%d bytes at %d of %d", len(p.Data), at, len(c.data))
		}
		copy(c.data[at:], p.Data)
		if p.Header[1]&1 == 0 {
			return nil
		}
		return u.finish(p.Tag(), c, p.Status(), nil)
	case op == 0x21:
		return u.finish(p.Tag(), c, p.Status(), p.Data)
	default:
		return fmt.Errorf("opcode %02x: % x", op, p.Header)
	}
}
