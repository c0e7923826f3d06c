package check

import (
	"slices"

	"pstorage/itest/nbd"
)

// replaced is a write that another has taken the place of.
type replaced struct {
	write uint32
	by    int // the acknowledgement of the other, in their sequence
}

// replace notes what a sector held, before its new content counts: until that is flushed, a cut may bring the old back.
func (v *Volume) replace(sector int64) {
	if !v.Cuts {
		return
	}
	if v.older == nil {
		v.older = map[int64][]replaced{}
	}
	v.older[sector] = append(v.older[sector], replaced{v.now[sector], v.sequence})
}

// flushed: what was acknowledged up to then is durable, and what it replaced is gone for good.
func (v *Volume) flushed(upTo int) {
	for sector, list := range v.older {
		list = slices.DeleteFunc(list, func(r replaced) bool { return r.by <= upTo })
		if v.older[sector] = list; len(list) == 0 {
			delete(v.older, sector)
		}
	}
}

// allowedAfterCut are the writes one of which a sector must hold when the power was gone.
func (v *Volume) allowedAfterCut(sector int64) []uint32 {
	list := v.allowed(sector)
	if old := v.older[sector]; len(old) > 0 {
		list = slices.Clone(list)
		for _, r := range old {
			list = append(list, r.write)
		}
	}
	return list
}

// Unflushed is how many sectors may fall back to something older.
func (v *Volume) Unflushed() int { return len(v.older) }

// VerifyCut is Verify after the power has been gone, and makes durable what it has found.
func (v *Volume) VerifyCut(c *nbd.Client) error {
	if err := v.verify(c, v.allowedAfterCut); err != nil {
		return err
	}
	if err := c.Flush(); err != nil {
		return err
	}
	clear(v.older)
	return nil
}
