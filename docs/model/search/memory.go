package search

const (
	shards     = 256
	firstTable = 64
	block      = 1 << 14 // elements that lists grow by
)

// set is a set of hashes, in open addressing; it grows a shard at a time, so that growing does not double the memory.
type set struct {
	tables [shards][]uint64 // 0 is an empty place
	used   [shards]int
}

// add reports whether the hash is new.
func (s *set) add(h uint64) bool {
	if h == 0 {
		h = 1
	}
	i := h % shards
	if s.used[i]*4 >= len(s.tables[i])*3 {
		s.grow(i)
	}
	if !insert(s.tables[i], h) {
		return false
	}
	s.used[i]++
	return true
}

func (s *set) grow(i uint64) {
	old := s.tables[i]
	s.tables[i] = make([]uint64, max(firstTable, 2*len(old)))
	for _, h := range old {
		if h != 0 {
			insert(s.tables[i], h)
		}
	}
}

func insert(table []uint64, h uint64) bool {
	mask := uint64(len(table) - 1)
	for at := h >> 8 & mask; ; at = (at + 1) & mask {
		switch table[at] {
		case 0:
			table[at] = h
			return true
		case h:
			return false
		}
	}
}

// list is a list in blocks: it grows without copying.
type list[T any] struct{ blocks [][]T }

func (l *list[T]) add(v T) {
	if n := len(l.blocks); n == 0 || len(l.blocks[n-1]) == block {
		l.blocks = append(l.blocks, make([]T, 0, block))
	}
	last := &l.blocks[len(l.blocks)-1]
	*last = append(*last, v)
}

func (l *list[T]) at(i int) T { return l.blocks[i/block][i%block] }

func (l *list[T]) len() int {
	if len(l.blocks) == 0 {
		return 0
	}
	return (len(l.blocks)-1)*block + len(l.blocks[len(l.blocks)-1])
}

type keys = list[Key]

// history is where each state came from.
type history struct {
	parents list[uint32]
	choices list[uint8]
}

func (h *history) len() int { return h.parents.len() }

func (h *history) add(parent, choice int) {
	h.parents.add(uint32(parent))
	h.choices.add(uint8(choice))
}

// way returns the choices that lead from the start to a state.
func (h *history) way(last int) []int {
	var back []int
	for n := last; n > 0; n = int(h.parents.at(n)) {
		back = append(back, int(h.choices.at(n)))
	}
	for i, j := 0, len(back)-1; i < j; i, j = i+1, j-1 {
		back[i], back[j] = back[j], back[i]
	}
	return back
}
