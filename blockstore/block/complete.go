package block

import "sync"

// CompleteAll hands every request of a batch, its outcome set, back to its completer: one call per completer. It allocates
// nothing in the steady state. The completers must be of comparable types.
func CompleteAll(batch []*Request) {
	if len(batch) == 0 {
		return
	}
	if first := batch[0].Done; sameCompleter(batch, first) {
		first.Complete(batch)
		return
	}
	completeGroups(batch)
}

func sameCompleter(batch []*Request, first Completer) bool {
	for _, r := range batch[1:] {
		if r.Done != first {
			return false
		}
	}
	return true
}

// groups is scratch: rest holds what is not yet complete, next what of it belongs to other completers. A request may be
// reused from the moment its completer has it, so nothing is read from it afterwards.
type groups struct{ mine, rest []*Request }

var groupsPool = sync.Pool{New: func() any { return new(groups) }}

func completeGroups(batch []*Request) {
	g := groupsPool.Get().(*groups)
	g.rest = append(g.rest[:0], batch...)
	for len(g.rest) > 0 {
		done := g.rest[0].Done
		g.mine = g.mine[:0]
		others := g.rest[:0]
		for _, r := range g.rest {
			if r.Done == done {
				g.mine = append(g.mine, r)
			} else {
				others = append(others, r)
			}
		}
		g.rest = others
		done.Complete(g.mine)
	}
	clear(g.mine[:cap(g.mine)])
	clear(g.rest[:cap(g.rest)])
	groupsPool.Put(g)
}
