package registry

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// listener is an address that targets are served on.
type listener struct {
	net.Listener
	down atomic.Bool // it accepts no more
	once sync.Once
}

func (l *listener) close() {
	l.once.Do(func() { _ = l.Close() })
}

// listen opens listeners for the portals of the exports, closes those that no export has any more, and notes which exports
// cannot be reached.
func (a *Agent) listen() {
	wanted := a.portals()
	for address, l := range a.listeners {
		if !wanted[address] || l.down.Load() {
			l.close()
			delete(a.listeners, address)
		}
	}
	failures := map[string]error{}
	for address := range wanted {
		if a.listeners[address] == nil {
			if err := a.open(address); err != nil {
				failures[address] = explain(address, err)
			}
		}
	}
	if a.noteFailures(failures) {
		a.tell()
	}
}

// portals are the addresses of all exports that do not end.
func (a *Agent) portals() map[string]bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	wanted := map[string]bool{}
	for _, e := range a.exports {
		if !e.ending {
			for _, p := range e.info.Portals {
				wanted[p.Address] = true
			}
		}
	}
	return wanted
}

func (a *Agent) open(address string) error {
	inner, err := a.cfg.Listen(a.ctx, address)
	if err != nil {
		return err
	}
	l := &listener{Listener: inner}
	a.listeners[address] = l
	a.log.Info("listening", "protocol", "iscsi", "address", address)
	a.wg.Go(func() {
		err := a.server.Serve(l)
		if !errors.Is(err, net.ErrClosed) && a.ctx.Err() == nil {
			a.log.Error("no longer listening", "address", address, "error", err)
		}
		l.down.Store(true)
		a.tell()
	})
	return nil
}

// noteFailures writes down for each export which of its portals are there; changed: others than before.
func (a *Agent) noteFailures(failures map[string]error) (changed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for name, e := range a.exports {
		if e.ending {
			continue
		}
		var texts []string
		for _, p := range e.info.Portals {
			if err := failures[p.Address]; err != nil {
				texts = append(texts, err.Error())
			}
		}
		failure, bound := strings.Join(slices.Compact(texts), "; "), len(e.info.Portals)-len(texts)
		if failure == e.failure && bound == e.bound {
			continue
		}
		if e.failure, e.bound, changed = failure, bound, true; failure != "" {
			a.log.Warn("target cannot be served everywhere", "target", name, "error", failure)
		}
	}
	return changed
}

// explain says what an administrator can do about an address.
func explain(address string, err error) error {
	host, _, _ := net.SplitHostPort(address)
	switch {
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("address %s is not on this host: give it to an interface, or the target another address", host)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("address %s is in use on this host: by another program, or given to targetd with --iscsi", address)
	}
	return fmt.Errorf("address %s: %w", address, err)
}
