package attach

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/google/uuid"

	"pstorage/target/nbd"
)

const (
	// lookEvery is how often a keeper looks whether its device is there.
	lookEvery = 5 * time.Second
	// The pauses between attempts to reach a server.
	firstPause, longestPause = 100 * time.Millisecond, 2 * time.Second
)

// Mapping is what is to be mapped.
type Mapping struct {
	Volume      string   // name of the export
	Servers     []string // HOST:PORT or unix:PATH, in order of preference
	Connections int      // 1 if the export does not allow several
	Patience    time.Duration
	Log         *slog.Logger
}

// keeper sees to a device's connections.
type keeper struct {
	*Host
	want   Mapping
	device Device
	index  uint32
	record Record
	found  bool // the device was there
	log    *slog.Logger
	links  links
}

// Map makes a volume a device, or takes over one that has no keeper any more, calls ready, and keeps it until it is unmapped: nil. When ctx ends it
// stays mapped, without a keeper: nil too.
func (h *Host) Map(ctx context.Context, want Mapping, ready func(Record)) error {
	k := &keeper{Host: h, want: want, log: want.Log.With("volume", want.Volume)}
	lock, err := h.lock(want.Volume)
	if err != nil {
		return err
	}
	defer lock.Close()
	defer k.links.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	dead, err := h.Kernel.Dead(ctx) // before there is a device: nothing is missed
	if err != nil {
		return errors.Join(err, h.forget(want.Volume))
	}
	if err := k.begin(ctx); err != nil {
		return err
	}
	ready(k.record)
	return k.keep(ctx, dead)
}

// begin finds the device, or makes it.
func (k *keeper) begin(ctx context.Context) error {
	if err := k.recall(); err != nil {
		return err
	}
	k.device.Backend, k.device.Patience = backend(k.want.Volume), k.want.Patience
	var index uint32
	var err error
	if index, k.found, err = k.find(k.want.Volume); err != nil {
		return err
	}
	if k.found {
		err = k.adopt(index)
	} else if err = k.connect(ctx); err != nil {
		err = errors.Join(err, k.forget(k.want.Volume))
	}
	if err != nil {
		return err
	}
	return errors.Join(k.save(), k.link(k.record))
}

// recall takes from an old record what connections there were.
func (k *keeper) recall() error {
	old, err := os.ReadFile(k.recordPath(k.want.Volume))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if json.Unmarshal(old, &k.record) == nil {
		k.links.recall(k.record.Sessions)
	}
	k.record = Record{Volume: k.want.Volume, Servers: k.want.Servers, Patience: int(k.want.Patience / time.Second), Keeper: os.Getpid()}
	return nil
}

// save writes the record: before the kernel gets a connection, so that none is forgotten.
func (k *keeper) save() error {
	k.record.Device, k.record.Index, k.record.Connections = k.devicePath(k.index), k.index, k.want.Connections
	k.record.ReadOnly, k.record.Sessions = k.device.Export.ReadOnly(), k.links.names()
	return k.remember(k.record)
}

// adopt takes a device that works, or did.
func (k *keeper) adopt(index uint32) (err error) {
	k.log.Info("device found without a keeper", "device", deviceName(index))
	k.index = index
	if k.device.Export.Size, err = k.size(k.index); err != nil {
		return err
	}
	ro, err := k.readOnly(k.index)
	k.device.Export.Name = k.want.Volume
	k.device.Export.SetReadOnly(ro)
	return err
}

// connect makes a device of new connections.
func (k *keeper) connect(ctx context.Context) (err error) {
	var all []*link
	for len(all) < max(k.want.Connections, 1) {
		l, e, err := k.dial(ctx)
		if err != nil {
			return err
		}
		all = append(all, l)
		k.links.add(l)
		if k.device.Export = e; !e.MultiConn() {
			k.want.Connections = 1
		}
	}
	if err := k.save(); err != nil {
		return err
	}
	fds := make([]int, len(all))
	for i, l := range all {
		fds[i] = l.fd()
	}
	k.index, err = k.Kernel.Connect(k.device, fds)
	return err
}

// dial connects to the first server that lets us in, in the place of the connections that have ended.
func (k *keeper) dial(ctx context.Context) (*link, nbd.Export, error) {
	var all []error
	for _, server := range k.want.Servers {
		session := nbd.Session{Identity: nbd.Identity(uuid.New()), Replaces: k.links.ended()}
		c, e, err := nbd.Dial(ctx, server, k.want.Volume, session)
		if err != nil {
			all = append(all, err)
			continue
		}
		k.links.replaced()
		l, err := newLink(c, session.Identity)
		if err == nil {
			return l, e, nil
		}
		all = append(all, err)
	}
	return nil, nbd.Export{}, errors.Join(all...)
}

// keep replaces connections that end, until the device is gone or ctx ends.
func (k *keeper) keep(ctx context.Context, dead <-chan uint32) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	heal := k.found // some may have ended while there was no keeper
	for {
		if heal {
			if err := k.heal(ctx); err != nil {
				return k.over(ctx, err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case index, ok := <-dead:
			if !ok {
				dead = nil // what is left is to look
			}
			heal = index == k.index && ok
		case <-look.C:
			up, err := k.Kernel.Connected(k.index)
			if err == nil && !up {
				err = ErrGone
			}
			if err != nil {
				return k.over(ctx, err)
			}
			heal = dead == nil
		}
	}
}

// over is what Map returns when it cannot keep the device.
func (k *keeper) over(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, ErrGone):
		k.log.Info("unmapped")
		return k.forget(k.want.Volume)
	}
	return err
}

// heal gives the kernel new connections for all that have ended.
func (k *keeper) heal(ctx context.Context) error {
	pause, told := firstPause, ""
	for {
		err := k.reconnect(ctx)
		switch {
		case errors.Is(err, ErrAlive):
			return nil
		case errors.Is(err, ErrGone), ctx.Err() != nil:
			return cmp.Or(ctx.Err(), err)
		case err == nil:
			k.log.Info("reconnected")
			pause, told = firstPause, ""
			continue
		}
		if text := err.Error(); text != told {
			told = text
			k.log.Warn("cannot reconnect, trying on", "error", err)
		}
		if up, err := k.Kernel.Connected(k.index); err == nil && !up {
			return ErrGone
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// reconnect gives the kernel one new connection.
func (k *keeper) reconnect(ctx context.Context) error {
	l, e, err := k.dial(ctx)
	if err != nil {
		return err
	}
	if e.Size < k.device.Export.Size || e.ReadOnly() != k.device.Export.ReadOnly() {
		return errors.Join(l.close(), fmt.Errorf("%s is another volume now: %d bytes (read-only: %v), mapped are %d (%v)", k.want.Volume, e.Size, e.ReadOnly(),
			k.device.Export.Size, k.device.Export.ReadOnly()))
	}
	d := k.device
	d.Export = e
	k.links.add(l)
	if err := k.save(); err != nil {
		return err
	}
	if err := k.Kernel.Reconfigure(k.index, d, l.fd()); err != nil {
		k.links.remove(l)
		return errors.Join(err, l.close())
	}
	k.device.Export.Size = e.Size
	return nil
}
