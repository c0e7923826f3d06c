package fsm

import (
	"fmt"
	"math/bits"

	"pstorage/meta/fsm/fsmpb"
)

// Quota is the limit that a directory sets to the sizes of all volumes below it together, and what these are.
type Quota struct {
	Path        string
	Limit, Used uint64
}

// limits calls yield for a directory and those that it is in, the nearest first, as far as they have a quota.
func (tx *txn) limits(directory uint64, yield func(id uint64, n *fsmpb.Node) bool) {
	for depth := 0; directory != 0; depth++ {
		n := tx.node(directory)
		if n == nil || depth > MaxDepth {
			tx.fail(fmt.Errorf("node %d has no way to the root: %w", directory, ErrCorrupt))
			return
		}
		if n.Quota != nil && !yield(directory, n) {
			return
		}
		directory = n.Parent
	}
}

// quotas returns those that hold for a file or directory.
func (tx *txn) quotas(id uint64, n *fsmpb.Node) (out []Quota) {
	if !n.Directory {
		id = n.Parent
	}
	tx.limits(id, func(id uint64, n *fsmpb.Node) bool {
		out = append(out, Quota{tx.pathOf(id), n.Quota.Limit, n.Quota.Used})
		return true
	})
	return out
}

// roomBelow tells whether a volume below a directory may have another size. Where there is more already than may be, it may stay as it is, or shrink.
func (tx *txn) roomBelow(directory, from, to uint64) (err error) {
	if to <= from {
		return nil
	}
	more := to - from
	tx.limits(directory, func(id uint64, n *fsmpb.Node) bool {
		if q := n.Quota; q.Used > q.Limit || more > q.Limit-q.Used {
			err = fmt.Errorf("%w: folder %s may hold volumes of %d bytes together, and holds %d; %d more do not fit", ErrQuota, tx.pathOf(id), q.Limit, q.Used, more)
		}
		return err == nil
	})
	return err
}

// recount notes that a volume below a directory has another size.
func (tx *txn) recount(directory, from, to uint64) {
	if from == to {
		return
	}
	tx.limits(directory, func(id uint64, n *fsmpb.Node) bool {
		n.Quota.Used += to - from // modulo 2^64: it may be less than nothing
		tx.putNode(id, n)
		return true
	})
}

// charge gives a volume below a directory another size as far as quotas go, or refuses to.
func (tx *txn) charge(directory, from, to uint64) error {
	if err := tx.roomBelow(directory, from, to); err != nil {
		return err
	}
	tx.recount(directory, from, to)
	return nil
}

// setQuota limits what a directory holds, or, with 0, does not any more. What it holds already stays.
func (tx *txn) setQuota(c *fsmpb.SetQuota) (*File, error) {
	id, n, err := tx.find(c.Path)
	if err != nil {
		return nil, err
	}
	if !n.Directory {
		return nil, fmt.Errorf("%s is no folder: %w", c.Path, ErrInvalid)
	}
	n.Quota = nil
	if c.Limit > 0 {
		used, fits := tx.sizeBelow(id)
		if !fits {
			return nil, fmt.Errorf("%s holds volumes of more bytes than can be counted: %w", c.Path, ErrInvalid)
		}
		n.Quota = &fsmpb.Quota{Limit: c.Limit, Used: used}
	}
	tx.putNode(id, n)
	return tx.file(id, n), nil
}

// sizeBelow adds up the sizes of the volumes below a directory; states that volumes are not in any more do not count.
func (tx *txn) sizeBelow(directory uint64) (sum uint64, fits bool) {
	for _, key := range keysWith(tx.names, nodeKey(directory)) {
		id := number(tx.names.Get(key))
		n := tx.node(id)
		if n == nil {
			tx.fail(fmt.Errorf("name %q has no node: %w", key[8:], ErrCorrupt))
			return 0, false
		}
		size, fits := n.Size, true
		if n.Directory {
			size, fits = tx.sizeBelow(id)
		}
		total, carry := bits.Add64(sum, size, 0)
		if !fits || carry != 0 {
			return 0, false
		}
		sum = total
	}
	return sum, true
}

// checkQuotas: a quota is a directory's, and says what the volumes below that have.
func (v *View) checkQuotas() (err error) {
	used := map[uint64]uint64{}
	v.Files(func(_ uint64, n *fsmpb.Node) bool {
		if !n.Directory && n.FormerOf == 0 {
			v.limits(n.Parent, func(id uint64, _ *fsmpb.Node) bool {
				used[id] += n.Size
				return true
			})
		}
		return true
	})
	v.Files(func(id uint64, n *fsmpb.Node) bool {
		if q := n.Quota; q != nil && (!n.Directory || q.Limit == 0 || q.Used != used[id]) {
			err = fmt.Errorf("node %d, directory %v: quota %v, used are %d: %w", id, n.Directory, q, used[id], ErrCorrupt)
		}
		return err == nil
	})
	return err
}
