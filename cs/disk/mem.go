package disk

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path"
	"sort"
	"strings"
	"sync"
)

const (
	memPage   = 4096
	memSector = 512
	memWord   = 4 // a killed process leaves aligned words of this many bytes old or new, as processors copy memory
)

// ErrDead: the process or the machine that used this Mem has ended.
var ErrDead = errors.New("the disk's user is dead")

// Op is one kind of step of a Mem.
type Op string

// The steps: everything that changes what a crash may leave, and reads.
const (
	OpCreate   Op = "create"
	OpOpen     Op = "open"
	OpRead     Op = "read"
	OpWrite    Op = "write"
	OpPunch    Op = "punch"
	OpTruncate Op = "truncate"
	OpSync     Op = "sync"
	OpRename   Op = "rename"
	OpRemove   Op = "remove"
	OpMkdir    Op = "mkdir"
	OpSyncDir  Op = "syncdir"
	OpCommit   Op = "commit" // of a database beside the files
)

// Step is one operation about to be done.
type Step struct {
	Op          Op
	Name        string
	Off, Length int64
}

func (s Step) String() string {
	switch s.Op {
	case OpRead, OpWrite, OpPunch:
		return fmt.Sprintf("%s %s %d+%d", s.Op, s.Name, s.Off, s.Length)
	}
	return string(s.Op) + " " + s.Name
}

// Mem is a file system in memory, for tests. It ends at a chosen step (Dies), or fails in one (Fails); Restart then gives what a
// new process, or a machine after a power cut, would find. After a power cut each page written since its file's last sync is old,
// new, or torn between sectors, and each entry of a folder made or removed since that folder's last sync may be there or not.
type Mem struct {
	mu       sync.Mutex
	rnd      *rand.Rand
	nodes    map[string]*memNode // by clean path
	durable  map[string]*memNode // what a power cut leaves; its content is each node's own matter
	boot     int
	capacity int64 // bytes; 0: no limit
	used     int64
	life     int // a file opened in an earlier life is dead
	steps    int
	diesAt   int
	killAt   int
	killed   func()
	dead     bool
	forgets  bool
	hook     func(Step) error
	stable   map[string]any // for Stable
}

type memNode struct {
	dir     bool
	size    int64
	pages   map[int64]*memData // what a process sees
	durable map[int64]*memData
	dirty   map[int64]bool // pages that a power cut may tear
	durSize int64
}

type memData [memPage]byte

// NewMem makes an empty file system; seed decides what a power cut leaves.
func NewMem(seed uint64) *Mem {
	m := &Mem{rnd: rand.New(rand.NewPCG(seed, 1)), nodes: map[string]*memNode{}, durable: map[string]*memNode{},
		stable: map[string]any{}}
	root := newNode(true)
	m.nodes["."], m.durable["."] = root, root
	return m
}

func newNode(dir bool) *memNode {
	return &memNode{dir: dir, pages: map[int64]*memData{}, durable: map[int64]*memData{}, dirty: map[int64]bool{}}
}

func clean(name string) string {
	if c := strings.TrimPrefix(path.Clean("/"+name), "/"); c != "" {
		return c
	}
	return "."
}

// Fails sets a function that is asked before each step; the error it returns is the step's. It must not use the Mem.
// A failed sync has forgotten the pages it should have made durable, as Linux does. Nil: nothing fails.
func (m *Mem) Fails(hook func(Step) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hook = hook
}

// Dies ends the user's life in the n-th step from now (1 is the next): that one is done in part, later ones not at all.
func (m *Mem) Dies(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.diesAt = m.steps + n
}

// Kill ends the user's life at once, between two steps.
func (m *Mem) Kill() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead, m.killAt = true, 0
}

// KillIn ends it before the n-th step from now (1 is the next), and calls then, which must not use the Mem.
func (m *Mem) KillIn(n int, then func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.killAt, m.killed = m.steps+n, then
}

// Steps counts what was done so far.
func (m *Mem) Steps() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.steps
}

// Limit sets the capacity in bytes; 0: none.
func (m *Mem) Limit(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes
}

// Life numbers the user's lives.
func (m *Mem) Life() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.life
}

// Do counts a step of a database that shares the disk's fate; unless that life is over, or ends or fails here, change is called, and
// it is durable.
func (m *Mem) Do(life int, name string, change func()) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if life != m.life {
		return ErrDead
	}
	if _, err := m.step(Step{Op: OpCommit, Name: name}); err != nil {
		return err
	}
	change()
	return nil
}

// Stable returns the value of that name that survives everything; make makes it the first time.
func (m *Mem) Stable(name string, make func() any) any {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.stable[name]; !ok {
		m.stable[name] = make()
	}
	return m.stable[name]
}

// Forgets has power cuts take everything that was not synced, or else what chance says.
func (m *Mem) Forgets(everything bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forgets = everything
}

// Restart ends the user's life, if it has not ended, and begins another: after power, with what was durable.
func (m *Mem) Restart(power bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.life++
	m.dead, m.diesAt, m.killAt, m.hook = false, 0, 0, nil
	if power {
		m.boot++
		m.powerCut()
	}
}

// step returns in part, with an error, when the user dies in it.
func (m *Mem) step(s Step) (inPart bool, err error) {
	if m.dead {
		return false, ErrDead
	}
	if m.hook != nil {
		if err := m.hook(s); err != nil {
			return false, fmt.Errorf("%s: %w", s, err)
		}
	}
	m.steps++
	if m.killAt != 0 && m.steps >= m.killAt {
		m.dead, m.killAt = true, 0
		m.killed()
		return false, ErrDead
	}
	if m.diesAt != 0 && m.steps >= m.diesAt {
		m.dead = true
		return true, ErrDead
	}
	return false, nil
}

func (m *Mem) powerCut() {
	after := map[string]*memNode{".": m.nodes["."]}
	names := maps.Clone(m.durable)
	maps.Copy(names, m.nodes)
	for _, name := range m.sorted(names) { // a folder comes before what is in it
		n, old := m.nodes[name], m.durable[name]
		if n != old && (m.forgets || m.rnd.IntN(2) == 0) {
			n = old // a change of the folder that was not synced and had no luck
		} else if n == nil {
			continue // a removal that had
		}
		if n != nil && after[path.Dir(name)] != nil {
			after[name] = n
		}
	}
	m.nodes, m.durable = after, map[string]*memNode{}
	for _, name := range m.sorted(after) {
		m.durable[name] = after[name]
		if m.forgets {
			after[name].forget()
		} else {
			after[name].powerCut(m.rnd)
		}
	}
	m.recount()
}

func (m *Mem) sorted(nodes map[string]*memNode) []string {
	names := make([]string, 0, len(nodes))
	for name := range nodes {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

func (n *memNode) powerCut(rnd *rand.Rand) {
	dirty := make([]int64, 0, len(n.dirty))
	for p := range n.dirty {
		dirty = append(dirty, p)
	}
	sort.Slice(dirty, func(i, j int) bool { return dirty[i] < dirty[j] })
	for _, p := range dirty {
		switch rnd.IntN(3) {
		case 0: // old
		case 1:
			n.setDurable(p, n.pages[p])
		case 2:
			n.setDurable(p, tear(rnd, n.durable[p], n.pages[p]))
		}
	}
	if n.durSize != n.size && rnd.IntN(2) == 0 {
		n.durSize = n.size
	}
	n.forget()
}

// forget leaves what is durable.
func (n *memNode) forget() {
	n.size, n.dirty = n.durSize, map[int64]bool{}
	n.pages = make(map[int64]*memData, len(n.durable))
	for p, d := range n.durable {
		n.pages[p] = d
	}
}

// tear mixes sectors of two versions of a page. One that had no place yet is marked as written only when it is, as a whole (File.Hole).
func tear(rnd *rand.Rand, old, new *memData) *memData {
	if old == nil {
		return new
	}
	mixed := &memData{}
	for s := 0; s < memPage; s += memSector {
		from := old
		if rnd.IntN(2) == 0 {
			from = new
		}
		if from != nil {
			copy(mixed[s:s+memSector], from[s:s+memSector])
		}
	}
	return mixed
}

func (n *memNode) setDurable(p int64, d *memData) {
	if d == nil {
		delete(n.durable, p)
		return
	}
	n.durable[p] = d
}

func (m *Mem) recount() {
	m.used = 0
	for _, n := range m.nodes {
		m.used += int64(len(n.pages)) * memPage
	}
}

func (m *Mem) lookup(name string, dir bool) (*memNode, error) {
	n := m.nodes[clean(name)]
	if n == nil || n.dir != dir {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return n, nil
}
