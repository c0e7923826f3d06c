package target

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"pstorage/blockstore/block"
)

// entry is a volume that is open, or being opened or closed. Volumes.mu covers it, but device, info, file and err, which are set
// before opened is closed and not changed afterwards.
type entry struct {
	volumes *Volumes
	name    string
	path    string
	frozen  *frozen       // nil: it is a volume
	users   int           // including those who wait for it to open
	opened  chan struct{} // closed when it is open, or cannot be opened
	gone    chan struct{} // closed when it is closed
	closing bool
	hurry   bool        // it is to close with its last user
	timer   *time.Timer // closes it when nobody has used it for a while

	device block.Device
	info   block.VolumeInfo
	file   uint64 // its number
	err    error  // why it cannot be opened

	closeErr error // set before gone is closed
}

// Open implements block.Catalog.
func (v *Volumes) Open(ctx context.Context, name string) (block.Device, block.VolumeInfo, error) {
	if f, ok, err := v.snapshotNamed(ctx, name); err != nil {
		return nil, block.VolumeInfo{}, err
	} else if ok {
		return v.share(ctx, name, f.path, &f)
	}
	path, ok := volumePath(name)
	if !ok {
		return nil, block.VolumeInfo{}, block.ErrNotFound
	}
	return v.use(ctx, name, path)
}

// use opens a file of the namespace, or shares it.
func (v *Volumes) use(ctx context.Context, name, path string) (block.Device, block.VolumeInfo, error) {
	return v.share(ctx, name, path, nil)
}

// share is use, also of a snapshot of the file.
func (v *Volumes) share(ctx context.Context, name, path string, f *frozen) (block.Device, block.VolumeInfo, error) {
	for {
		e, joined, err := v.join(name, path, f)
		if err != nil {
			return nil, block.VolumeInfo{}, err
		}
		if !joined {
			if err := e.awaitGone(ctx); err != nil {
				return nil, block.VolumeInfo{}, err
			}
			continue
		}
		if err := e.awaitOpen(ctx); err != nil {
			return nil, block.VolumeInfo{}, err
		}
		if isDead(e.device) {
			e.replace()
			e.leave()
			continue
		}
		info := e.info
		info.Size = e.device.Size()
		return &user{Device: e.device, entry: e}, info, nil
	}
}

// join makes the caller a user of the volume's entry, unless that is closing; a new one starts to open the volume.
func (v *Volumes) join(name, path string, f *frozen) (e *entry, joined bool, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.closed {
		return nil, false, block.ErrClosed
	}
	e = v.entries[name]
	if e == nil {
		e = &entry{volumes: v, name: name, path: path, frozen: f, opened: make(chan struct{}), gone: make(chan struct{})}
		v.entries[name] = e
		go e.open()
	}
	if e.closing {
		return e, false, nil
	}
	e.users++
	e.hurry = false
	if e.timer != nil {
		e.timer.Stop()
	}
	return e, true, nil
}

// awaitOpen waits until the volume is open.
func (e *entry) awaitOpen(ctx context.Context) error {
	select {
	case <-e.opened:
		return e.err
	case <-ctx.Done():
		e.leave()
		return fmt.Errorf("%w: %w", ErrNotNow, ctx.Err())
	}
}

// awaitGone waits until the volume is closed and can be opened again.
func (e *entry) awaitGone(ctx context.Context) error {
	select {
	case <-e.gone:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrNotNow, ctx.Err())
	}
}

// open opens the volume for all who wait for it. A caller that gives up does not end it: others may have come.
func (e *entry) open() {
	v := e.volumes
	ctx, cancel := context.WithTimeout(v.ctx, openTime)
	defer cancel()
	start := e.openVolume
	if e.frozen != nil {
		start = e.openFrozen
	}
	device, err := start(ctx)
	v.mu.Lock()
	defer v.mu.Unlock()
	e.device, e.err = device, err
	close(e.opened)
	if err != nil {
		e.forget()
		return
	}
	e.idle()
}

// openVolume opens the entry's volume. What it is is asked for while the lease is held, so that it is this file and not one that had the name before.
func (e *entry) openVolume(ctx context.Context) (block.Device, error) {
	device, err := e.volumes.open(ctx, e.path)
	if err != nil {
		return nil, explain(err)
	}
	if e.info, e.file, err = e.volumes.describe(ctx, e.name, e.path); err != nil {
		return nil, errors.Join(err, device.Close())
	}
	return device, nil
}

// forget takes the entry out of the catalog, for good. Volumes.mu is held.
func (e *entry) forget() {
	if e.volumes.entries[e.name] == e {
		delete(e.volumes.entries, e.name)
	}
	e.closing = true
	close(e.gone)
}

// replace makes place for a new entry of the same name; this one's volume is dead, and goes with its last user.
func (e *entry) replace() {
	v := e.volumes
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.entries[e.name] == e {
		delete(v.entries, e.name)
	}
}

// leave ends one use.
func (e *entry) leave() {
	e.volumes.mu.Lock()
	defer e.volumes.mu.Unlock()
	if e.users--; e.users < 0 {
		panic("target: volume closed more often than opened")
	}
	e.idle()
}

// idle has the volume closed soon if nobody uses it, at once if there is no sense in keeping it. Volumes.mu is held.
func (e *entry) idle() {
	if e.users > 0 || e.closing || e.device == nil {
		return
	}
	after := linger
	if e.hurry || e.volumes.closed || e.volumes.entries[e.name] != e {
		after = 0
	}
	if e.timer == nil {
		e.timer = time.AfterFunc(after, e.closeIdle)
	} else {
		e.timer.Reset(after)
	}
}

// closeIdle closes the volume if still nobody uses it.
func (e *entry) closeIdle() {
	e.volumes.mu.Lock()
	if e.users > 0 || e.closing {
		e.volumes.mu.Unlock()
		return
	}
	e.closing = true
	e.volumes.mu.Unlock()
	err := e.device.Close()
	if errors.Is(err, block.ErrLostLease) {
		err = nil // it was removed, or is another's now: its users were told then, and nothing was left to close
	}
	e.volumes.mu.Lock()
	defer e.volumes.mu.Unlock()
	e.closeErr = err
	e.forget()
}

// Close closes the volumes that nobody uses at once and the others with their last user, and waits for all of them. What is
// being opened is not waited for. It reports what went wrong in closing.
func (v *Volumes) Close() error {
	v.cancel()
	v.mu.Lock()
	v.closed = true
	all := make([]*entry, 0, len(v.entries))
	for _, e := range v.entries {
		all = append(all, e)
		e.idle()
	}
	v.mu.Unlock()
	var errs []error
	for _, e := range all {
		<-e.gone
		errs = append(errs, e.closeErr)
	}
	return errors.Join(errs...)
}

// user is one user's access to a shared volume.
type user struct {
	block.Device
	entry *entry
	once  sync.Once
}

// Close implements block.Device. The volume itself is closed later.
func (u *user) Close() error {
	u.once.Do(u.entry.leave)
	return nil
}

// AtomicWrites implements block.AtomicWriter.
func (u *user) AtomicWrites() block.Atomicity { return block.AtomicWrites(u.Device) }

// OnLoss implements block.Lossy.
func (u *user) OnLoss(f func()) (stop func()) { return block.OnLoss(u.Device, f) }

// OnSpace implements block.Thin.
func (u *user) OnSpace(f func(block.Space)) (stop func()) {
	return u.entry.volumes.spaces.watch(u.entry.file, f)
}

// probe is the completer of a request that does nothing.
type probe chan error

func (p probe) Complete(batch []*block.Request) { p <- batch[0].Err }

// isDead says that a device can do nothing any more. A read of nothing tells: it needs no server, so that only a device
// that is closed or has lost its lease refuses it. One that has to wait for its lease's renewal answers later: it lives.
func isDead(d block.Device) bool {
	answer := make(probe, 1)
	d.Submit([]*block.Request{{Op: block.Read, Done: answer}})
	select {
	case err := <-answer:
		return errors.Is(err, block.ErrLostLease) || errors.Is(err, block.ErrClosed)
	default:
		return false
	}
}
