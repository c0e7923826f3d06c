package leader

import (
	"context"
	"fmt"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
)

// maxList is the most entries of one List.
const maxList = 50_000

// Create makes a file or directory.
func (l *Leader) Create(ctx context.Context, in *metapb.CreateRequest) (*metapb.FileInfo, error) {
	f, err := propose[*fsm.File](ctx, l, &fsmpb.Command{Command: &fsmpb.Command_Create{Create: &fsmpb.CreateNode{
		Path: in.Path, Directory: in.Directory, Size: in.Size, Attributes: attributesIn(in.Attributes), Created: unixNow(), Incoming: incomingIn(in.Incoming)}}})
	if err != nil {
		return nil, Status(err)
	}
	return info(f, 0), nil
}

// SetIncoming closes a file to all but an import, or notes how far that has come.
func (l *Leader) SetIncoming(ctx context.Context, in *metapb.SetIncomingRequest) (*metapb.FileInfo, error) {
	if err := checkClient(in.Client); err != nil {
		return nil, Status(err)
	}
	f, err := propose[*fsm.File](ctx, l, &fsmpb.Command{Command: &fsmpb.Command_SetIncoming{SetIncoming: &fsmpb.SetIncoming{
		File: in.File, Epoch: in.Epoch, Client: in.Client.Id, Incoming: incomingIn(in.Incoming)}}})
	if err != nil {
		return nil, Status(err)
	}
	return info(f, 0), nil
}

// Remove forgets a file or an empty directory. While a lease is live, only with force; nobody is given the lease meanwhile.
func (l *Leader) Remove(ctx context.Context, in *metapb.RemoveRequest) (*metapb.RemoveReply, error) {
	var f *fsm.File
	err := l.View(func(v *fsm.View) (err error) { f, err = v.Lookup(in.Path); return err })
	if err != nil {
		return nil, Status(err)
	}
	end, err := l.Removing(f, func(*fsmpb.Holder) bool { return in.Force })
	if err != nil {
		return nil, Status(err)
	}
	_, err = l.consensus.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_Remove{Remove: &fsmpb.RemoveNode{
		Path: in.Path, Epoch: f.Node.Epoch, Force: in.Force}}})
	end(err == nil)
	if err != nil {
		return nil, Status(err)
	}
	return &metapb.RemoveReply{}, nil
}

// Removing judges that a file, as it was seen, may be forgotten: nobody's lease is live, or the holder gives way. Until end, which has to follow, nobody
// renews; gone tells whether the file was forgotten. That it was not opened since it was seen, the entry has to make sure of (by its epoch).
func (l *Leader) Removing(f *fsm.File, givesWay func(*fsmpb.Holder) bool) (end func(gone bool), err error) {
	h := f.Node.Holder
	if h != nil {
		if left := l.leases.beginGrant(f.ID, yields(h) || givesWay(h)); left > 0 {
			return nil, fmt.Errorf("%s: %w: held by %s on %s, for %v at least", f.Path, fsm.ErrNotHolder, clientName(h.Id), h.Host, left.Round(time.Millisecond))
		}
	}
	return func(gone bool) {
		if h != nil {
			l.leases.endGrant(f.ID, false)
		}
		if gone {
			l.leases.closed(f.ID)
			l.recovery.Kick()
		}
	}, nil
}

// List lists a directory.
func (l *Leader) List(_ context.Context, in *metapb.ListRequest) (*metapb.ListReply, error) {
	out := &metapb.ListReply{}
	err := l.View(func(v *fsm.View) error {
		files, err := v.List(in.Path, in.Recursive, maxList)
		if err != nil {
			return err
		}
		lost := l.lost(v)
		for _, f := range files {
			out.Files = append(out.Files, l.dated(info(f, lost[f.ID])))
		}
		return nil
	})
	return out, Status(err)
}

// Lookup describes one file or directory.
func (l *Leader) Lookup(_ context.Context, in *metapb.LookupRequest) (out *metapb.FileInfo, err error) {
	err = l.View(func(v *fsm.View) error {
		var f *fsm.File
		if in.Id != 0 {
			f, err = v.File(in.Id)
		} else {
			f, err = v.Lookup(in.Path)
		}
		if err != nil {
			return err
		}
		out = l.dated(info(f, l.lost(v)[f.ID]))
		return nil
	})
	return out, Status(err)
}

// SetAttributes changes what a file or directory says itself.
func (l *Leader) SetAttributes(ctx context.Context, in *metapb.SetAttributesRequest) (*metapb.FileInfo, error) {
	f, err := propose[*fsm.File](ctx, l, &fsmpb.Command{Command: &fsmpb.Command_SetAttributes{SetAttributes: &fsmpb.SetAttributes{
		Path: in.Path, Attributes: attributesIn(in.Attributes)}}})
	if err != nil {
		return nil, Status(err)
	}
	l.recovery.Rescan()
	return info(f, 0), nil
}

// Resize grows a file.
func (l *Leader) Resize(ctx context.Context, in *metapb.ResizeRequest) (*metapb.FileInfo, error) {
	f, err := propose[*fsm.File](ctx, l, &fsmpb.Command{Command: &fsmpb.Command_Resize{Resize: &fsmpb.Resize{Path: in.Path, Size: in.Size}}})
	if err != nil {
		return nil, Status(err)
	}
	return info(f, 0), nil
}

// SetQuota limits the sizes of all volumes below a folder together.
func (l *Leader) SetQuota(ctx context.Context, in *metapb.SetQuotaRequest) (*metapb.FileInfo, error) {
	f, err := propose[*fsm.File](ctx, l, &fsmpb.Command{Command: &fsmpb.Command_SetQuota{SetQuota: &fsmpb.SetQuota{Path: in.Path, Limit: in.Limit}}})
	if err != nil {
		return nil, Status(err)
	}
	return info(f, 0), nil
}

// checkClient checks how a client names itself.
func checkClient(c *metapb.Client) error {
	if len(c.GetId()) != fsm.ClientIDSize || len(c.GetHost()) > fsm.MaxHost {
		return invalid("client %x on %.60q", c.GetId(), c.GetHost())
	}
	return nil
}
