package leader

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
)

const (
	// maxHeld is the most files of one Renew.
	maxHeld = 16384
	// grantTries is how often a grant is tried again when the file has changed meanwhile.
	grantTries = 4
	// raiseWait is how long Open waits for servers to learn that rebuilds have ended. It need not: it spares the holder some refusals.
	raiseWait = 500 * time.Millisecond
)

// Open gives the lease to a client (R1): if nobody's is live, or if it is the client's own, of an earlier process, or recovery's. The layers in the reply are those
// at the grant's place in the log: snapshots that were asked for under an earlier epoch are either before it or refused.
func (l *Leader) Open(ctx context.Context, in *metapb.OpenRequest) (*metapb.OpenReply, error) {
	if isSuccessor(in.Client.GetId()) {
		return nil, Status(invalid("client %x: recovery's own name", in.Client.Id))
	}
	return l.open(ctx, in, func(f *fsm.File) error { return readable(f, in.Over) })
}

// readable refuses a file over a snapshot to a client that knows nothing of that.
func readable(f *fsm.File, over bool) error {
	if f.Over != nil && !over {
		return fmt.Errorf("%s: %w", f.Path, errKnowsNoClones)
	}
	return nil
}

// open gives the lease if judge has nothing against it.
func (l *Leader) open(ctx context.Context, in *metapb.OpenRequest, judge func(*fsm.File) error) (*metapb.OpenReply, error) {
	if err := checkClient(in.Client); err != nil {
		return nil, Status(err)
	}
	var g *fsm.Granted
	err := error(fsm.ErrConflict)
	for try := 0; try < grantTries && errors.Is(err, fsm.ErrConflict); try++ {
		g, err = l.grant(ctx, in, judge)
	}
	if err != nil {
		return nil, Status(err)
	}
	l.recovery.Interrupt(g.Ended)
	wait, cancel := context.WithTimeout(ctx, raiseWait)
	defer cancel()
	l.sessions.Publish(g.Ended, true).Wait(wait)
	out := &metapb.OpenReply{File: info(g.File, 0), Epoch: g.File.Node.Epoch, LeaseMs: LeaseTime.Milliseconds()}
	err = l.View(func(v *fsm.View) error { out.Servers = l.servers(v); return nil })
	return out, Status(err)
}

func (l *Leader) grant(ctx context.Context, in *metapb.OpenRequest, judge func(*fsm.File) error) (g *fsm.Granted, err error) {
	var f *fsm.File
	if err := l.View(func(v *fsm.View) (err error) { f, err = v.Lookup(in.Path); return err }); err != nil {
		return nil, err
	}
	if f.Node.Directory {
		return nil, invalid("%s is a directory", f.Path)
	}
	if err := judge(f); err != nil {
		return nil, err
	}
	own, err := ownLease(f.Node.Holder, in.Client)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Path, err)
	}
	if left := l.leases.beginGrant(f.ID, own); left > 0 {
		return nil, fmt.Errorf("%s: %w: by %s on %q, for %v at least", f.Path, errHeld,
			clientName(f.Node.Holder.Id), f.Node.Holder.Host, left.Round(time.Millisecond))
	}
	defer func() { l.leases.endGrant(f.ID, err == nil) }()
	return propose[*fsm.Granted](ctx, l, &fsmpb.Command{Command: &fsmpb.Command_Grant{Grant: &fsmpb.Grant{File: f.ID, Epoch: f.Node.Epoch,
		Holder: &fsmpb.Holder{Id: in.Client.Id, Incarnation: in.Client.Incarnation, Host: in.Client.Host}, Incoming: in.Incoming}}})
}

// ownLease tells whether the lease may be taken without waiting: nobody has it, or recovery, which yields, or the client itself, or an
// earlier process of it, which is gone (the client holds its lock file).
func ownLease(h *fsmpb.Holder, c *metapb.Client) (bool, error) {
	switch {
	case h == nil || yields(h):
		return true, nil
	case !bytes.Equal(h.Id, c.Id):
		return false, nil
	case h.Incarnation > c.Incarnation:
		return false, errOld
	}
	return true, nil
}

// Renew prolongs a client's leases (R1). The promise holds from when the client sent the request; it is good because, at some moment after
// that, this server still led, and no later leader grants before a full lease has passed.
func (l *Leader) Renew(ctx context.Context, in *metapb.RenewRequest) (*metapb.RenewReply, error) {
	if err := checkClient(in.Client); err != nil {
		return nil, Status(err)
	}
	if len(in.Held) > maxHeld {
		return nil, Status(invalid("%d files in one renewal, at most %d", len(in.Held), maxHeld))
	}
	mine, _, err := l.holds(in)
	if err != nil {
		return nil, Status(err)
	}
	refused := l.leases.renew(mine)
	if err := l.Verify(ctx); err != nil {
		return nil, Status(err)
	}
	_, out, err := l.holds(in)
	if err != nil {
		return nil, Status(err)
	}
	return withdraw(out, refused), nil
}

// withdraw takes files that are just being granted to somebody off a reply.
func withdraw(out *metapb.RenewReply, refused map[uint64]bool) *metapb.RenewReply {
	if len(refused) == 0 {
		return out
	}
	kept := out.Changed[:0]
	for _, f := range out.Changed {
		if refused[f.Id] {
			out.Lost = append(out.Lost, f.Id)
			continue
		}
		kept = append(kept, f)
	}
	out.Changed = kept
	return out
}

// holds looks which of the files the client names are its own.
func (l *Leader) holds(in *metapb.RenewRequest) (mine []uint64, out *metapb.RenewReply, err error) {
	out = &metapb.RenewReply{LeaseMs: LeaseTime.Milliseconds()}
	err = l.View(func(v *fsm.View) error {
		for _, held := range in.Held {
			f, err := v.File(held.File)
			if err != nil && !errors.Is(err, fsm.ErrNotFound) {
				return err
			}
			if err != nil || !isHolder(f.Node, in.Client, held.Epoch) {
				out.Lost = append(out.Lost, held.File)
				continue
			}
			mine = append(mine, held.File)
			out.Changed = append(out.Changed, info(f, 0))
		}
		return nil
	})
	return mine, out, err
}

func isHolder(n *fsmpb.Node, c *metapb.Client, epoch uint64) bool {
	return n.Holder != nil && n.Epoch == epoch && n.Holder.Incarnation == c.Incarnation && bytes.Equal(n.Holder.Id, c.Id)
}

// Settled notes that the holder has fenced and reconciled the file (R5).
func (l *Leader) Settled(ctx context.Context, in *metapb.SettledRequest) (*metapb.SettledReply, error) {
	if err := checkClient(in.Client); err != nil {
		return nil, Status(err)
	}
	_, err := l.consensus.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_Settled{Settled: &fsmpb.Settled{
		File: in.File, Epoch: in.Epoch, Client: in.Client.Id}}})
	if err != nil {
		return nil, Status(err)
	}
	l.recovery.Kick()
	return &metapb.SettledReply{}, nil
}

// CloseFile gives a lease back.
func (l *Leader) CloseFile(ctx context.Context, in *metapb.CloseFileRequest) (*metapb.CloseFileReply, error) {
	if err := checkClient(in.Client); err != nil {
		return nil, Status(err)
	}
	_, err := l.consensus.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_Close{Close: &fsmpb.CloseFile{
		File: in.File, Epoch: in.Epoch, Client: in.Client.Id, Clean: in.Clean}}})
	if err != nil {
		return nil, Status(err)
	}
	l.leases.closed(in.File)
	return &metapb.CloseFileReply{}, nil
}
