package blockstore

import (
	"context"
	"errors"
	"fmt"

	"pstorage/blockstore/block"
	"pstorage/cs/chunk"
	"pstorage/cs/wire"
)

// ErrNotComparable: what has changed between two snapshots cannot be told, for they are not an older and a newer one of one file.
var ErrNotComparable = errors.New("not an older snapshot of the same volume")

// errMerged: one of the layers that were asked about was merged into another.
var errMerged = errors.New("a layer was merged")

// Changed describes the range by what was written since an older snapshot of the same file was taken, as at most so many changes, in order and without gaps. It is the layers above
// that one up to this that tell, by block: one is never unchanged if it differs, and what was written with the data that it had has changed. No snapshot deleted between, below or above makes a
// difference; once since itself is deleted its layer is a part of those above, and ErrSnapshotDeleted names it.
func (s *Snapshot) Changed(ctx context.Context, since *Snapshot, offset, length int64, most int) ([]block.Change, error) {
	length = min(length, s.size-offset)
	switch {
	case offset < 0 || length <= 0 || most < 1:
		return nil, s.named(fmt.Errorf("changes of %d bytes at %d: %w", length, offset, block.ErrRange))
	case since.file != s.file || since.layer >= s.layer:
		return nil, s.named(fmt.Errorf("%s is %w", since.name, ErrNotComparable))
	case since.gone.Load():
		return nil, since.named(ErrSnapshotDeleted)
	}
	ctx, cancel := context.WithTimeout(ctx, snapshotWait)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	c := changeList{most: most}
	for at, end := offset, offset+length; at < end && !c.full; {
		in := at & (1<<s.shift - 1)
		n := min(end-at, 1<<s.shift-in, wire.MaxSums*block.Size-at%block.Size)
		if err := s.compare(ctx, since, &c, at, n); err != nil {
			return nil, err
		}
		at += n
	}
	return c.list, nil
}

// changeList gathers runs that are alike.
type changeList struct {
	list []block.Change
	most int
	full bool
}

func (c *changeList) add(offset, length int64, changed, zero bool) {
	if k := len(c.list) - 1; k >= 0 && c.list[k].Changed == changed && c.list[k].Zero == zero {
		c.list[k].Length += length
	} else if c.full = len(c.list) == c.most; !c.full {
		c.list = append(c.list, block.Change{Offset: offset, Length: length, Changed: changed, Zero: zero})
	}
}

// compare adds the changes of a range within a chunk.
func (s *Snapshot) compare(ctx context.Context, since *Snapshot, c *changeList, at, n int64) error {
	codes, there, err := s.codes(ctx, wire.Call{Op: wire.OpTableLayer, Epoch: uint64(s.layer - since.layer - 1)}, at, n)
	switch {
	case errors.Is(err, errMerged):
		return s.whichIsGone(ctx, since, uint32(at>>s.shift))
	case err != nil:
		return s.named(err)
	case !there:
		c.add(at, n, false, false)
		return nil
	}
	for _, code := range codes {
		k := min(n, block.Size-at%block.Size)
		c.add(at, k, code != chunk.Absent, code == chunk.Zeros)
		if at, n = at+k, n-k; c.full {
			break
		}
	}
	return nil
}

// whichIsGone says which of two snapshots was deleted: a chunk server has said that one was.
func (s *Snapshot) whichIsGone(ctx context.Context, since *Snapshot, index uint32) error {
	w := wire.Call{Op: wire.OpTable, Length: block.Size}
	if _, err := s.ask(ctx, index, &w); err != nil {
		return s.named(err)
	}
	since.gone.Store(true)
	return since.named(ErrSnapshotDeleted)
}
