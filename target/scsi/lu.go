package scsi

import (
	"context"
	"math/bits"
	"sync"
	"sync/atomic"

	"pstorage/blockstore/block"
)

// Options of a logical unit.
type Options struct {
	// ReadOnly refuses every command that writes.
	ReadOnly bool
	// Removable makes the medium one that can be ejected. Hypervisors take such a disk for a floppy: only for tests.
	Removable bool
	// BlockSize is that of a logical block: 512 (also if 0) or 4096 bytes.
	BlockSize int
	// PhysicalBlock is what initiators are told to align to: 4096 bytes, or 0 for BlockSize. The store sums up 4096 bytes at a time whatever
	// is told; some hypervisors take no disk that says so.
	PhysicalBlock int
	// Reservations keeps persistent reservations; nil: they live as long as the LU.
	Reservations Reservations
	// Host is told when the LU works by itself; nil: the LU is not closed before it has ended that.
	Host Host
	// Peers finds the logical units that EXTENDED COPY may copy from and to; nil: the LU itself only.
	Peers Peers
}

// ValidBlockSize reports whether a logical unit can have blocks, logical or physical, of n bytes.
func ValidBlockSize(n int) bool { return n == 512 || n == 4096 }

// flags of an LU that commands look at without a lock.
const (
	descriptorSense uint32 = 1 << iota // D_SENSE of the control mode page
	softProtect                        // SWP of the control mode page
	writeThrough                       // WCE of the caching mode page is off
	readOnly
	removable
	ejected
	sanitizing
	sanitizeFailed
	reserved // there is a reservation of some kind: ask the table
)

// LU is a logical unit: a volume as a thin disk, with the state that its initiators share.
type LU struct {
	dev       block.Device
	id        [16]byte
	blockSize int
	shift     uint // of blockSize
	exponent  byte // logical blocks per physical block, as a power of two
	peers     Peers
	flags     atomic.Uint32
	size      atomic.Int64 // as last told to initiators
	host      Host
	sanitizer sanitizer
	writers   writers

	continuing serial // tasks whose next request is to be submitted
	blocking   serial // tasks whose execution may block
	ctx        context.Context
	cancel     context.CancelFunc
	unwatch    func() // the device's losses and its space
	thin       bool   // the device tells its space

	mu      sync.Mutex
	nexuses map[*Nexus]struct{}
	holder  *Nexus // of the RESERVE(6) reservation
	pr      reservations
	room    room
}

// NewLU makes a logical unit of an open device, which it does not close.
func NewLU(dev block.Device, info block.VolumeInfo, o Options) *LU {
	u := &LU{dev: dev, id: info.ID, blockSize: block.SectorSize, peers: o.Peers, nexuses: map[*Nexus]struct{}{}}
	if o.BlockSize != 0 {
		u.blockSize = o.BlockSize
	}
	u.shift = uint(bits.TrailingZeros(uint(u.blockSize)))
	u.exponent = byte(bits.TrailingZeros(uint(max(o.PhysicalBlock, u.blockSize)))) - byte(u.shift)
	u.ctx, u.cancel = context.WithCancel(context.Background())
	u.size.Store(dev.Size())
	u.writers.none = make(chan struct{}, 1)
	u.continuing.f = u.submitNext
	u.blocking.f = func(t *Task) { t.execute(u.ctx) }
	u.set(readOnly, o.ReadOnly || info.ReadOnly)
	u.set(removable, o.Removable)
	u.pr.load(o.Reservations, u.id)
	u.set(reserved, u.pr.active())
	if u.host = o.Host; u.host == nil {
		u.host = alone{}
	}
	u.initSanitizer()
	u.room.standard.enabled = true
	u.room.now = u.room.standard
	u.watch()
	return u
}

// watch has the device tell what happens to it. A loss is told to initiators as by a disk whose cache has lost its power.
func (u *LU) watch() {
	losses := block.OnLoss(u.dev, func() {
		u.sanitizer.lost.Store(true)
		u.attention(ascPowerOn, nil)
	})
	space, thin := block.OnSpace(u.dev, u.learnSpace)
	u.thin = thin
	u.unwatch = func() {
		losses()
		space()
	}
}

// Err tells why what is reserved of the LU is not known; it is of use to nobody then. Whoever has made it can make another, later.
func (u *LU) Err() error { return u.pr.broken }

// Close ends what the LU does by itself, and waits for that. There must be no unfinished task.
func (u *LU) Close() {
	u.unwatch()
	u.cancel()
	u.sanitizer.working.Wait()
}

// Submit hands requests of started tasks to the device.
func (u *LU) Submit(batch []*block.Request) { u.dev.Submit(batch) }

func (u *LU) submitNext(t *Task) {
	batch := [1]*block.Request{&t.Req}
	if t.peer != nil {
		u = t.peer
	}
	u.dev.Submit(batch[:])
}

func (u *LU) has(f uint32) bool { return u.flags.Load()&f != 0 }

func (u *LU) set(f uint32, on bool) {
	if on {
		u.flags.Or(f)
	} else {
		u.flags.And(^f)
	}
}

// inBlocks and inBytes convert lengths; what is left of a block at the end of a device is not used.
func (u *LU) inBlocks(bytes int64) uint64 { return uint64(bytes) >> u.shift }
func (u *LU) inBytes(blocks uint64) int64 { return int64(blocks) << u.shift }

// capacity returns the number of logical blocks, and tells every initiator when it has changed.
func (u *LU) capacity() uint64 {
	size := u.dev.Size()
	if last := u.size.Load(); last != size && u.size.CompareAndSwap(last, size) {
		u.attention(ascCapacityChanged, nil)
	}
	return u.inBlocks(size)
}

// attention establishes a unit attention for every nexus but one.
func (u *LU) attention(c code, except *Nexus) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.attentionLocked(c, except)
}

func (u *LU) attentionLocked(c code, except *Nexus) {
	for n := range u.nexuses {
		if n != except {
			n.attention(c)
		}
	}
}

// Reset does what a logical unit reset does, once every task is ended: shared state goes back to its defaults, and
// every initiator is told. Persistent reservations stay.
func (u *LU) Reset() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.set(descriptorSense|softProtect|writeThrough, false)
	u.holder = nil
	u.set(reserved, u.pr.active())
	for n := range u.nexuses {
		n.prevent = false
		n.attention(ascReset)
	}
	u.setThreshold(u.room.standard)
}

// Cleared tells every initiator but the one that asked that their commands were cleared.
func (u *LU) Cleared(by *Nexus) { u.attention(ascCommandsCleared, by) }

// serial runs f over tasks one after another, on a goroutine that exists only while there are any.
type serial struct {
	f       func(*Task)
	mu      sync.Mutex
	queue   []*Task
	running bool
}

// add never blocks.
func (s *serial) add(t *Task) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, t)
	if !s.running {
		s.running = true
		go s.run()
	}
}

func (s *serial) run() {
	for {
		s.mu.Lock()
		if len(s.queue) == 0 {
			s.running = false
			s.mu.Unlock()
			return
		}
		t := s.queue[0]
		s.queue = s.queue[1:]
		s.mu.Unlock()
		s.f(t)
	}
}
