package blockstore

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"pstorage/blockstore/block"
	"pstorage/meta/metapb"
	"pstorage/meta/rules"
)

// lease is the right to use a file (R1), counted on the client's monotonic clock from the sending of the last renewal that
// succeeded. When it runs out, everything waits: the metadata servers may be away for a while, and if a later renewal finds the
// lease still the volume's, with the same epoch, nobody has had it meanwhile and everything goes on. Only when they say
// that it is another's do the requests fail.
type lease struct {
	until atomic.Int64  // everything stops then
	lost  atomic.Bool   // never comes back
	given atomic.Bool   // it is being given back: a renewal that finds it gone means that
	why   atomic.Value  // string
	held  time.Duration // how long one renewal lasts, the margin taken off
}

// grant counts from the time of sending.
func (l *lease) grant(sent int64, leaseMS int64) {
	d := time.Duration(leaseMS) * time.Millisecond
	if d <= 0 {
		d = defaultLease
	}
	l.held = d - d/3
	if until := sent + int64(l.held); until > l.until.Load() {
		l.until.Store(until)
	}
}

// valid reports whether I/O may be started now.
func (v *Volume) leaseValid() bool {
	return v.c.now() < v.lease.until.Load() && !v.lease.lost.Load() || v.opt.leftOut.Has(rules.R1)
}

// renewLoop renews all leases, once a second.
func (c *Client) renewLoop() {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
			c.renew()
		}
	}
}

// renew renews every lease with one call.
func (c *Client) renew() {
	req := &metapb.RenewRequest{Client: c.me}
	held := map[uint64]*Volume{}
	for _, v := range c.open() {
		if v.epoch != 0 && !v.lease.lost.Load() {
			held[v.file] = v
			req.Held = append(req.Held, &metapb.Held{File: v.file, Epoch: v.epoch})
		}
	}
	if len(req.Held) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(c.ctx, renewTimeout)
	defer cancel()
	sent := c.now()
	rep, err := c.meta.Renew(ctx, req)
	if err != nil {
		if c.ctx.Err() == nil {
			c.warner.warn(c.log, "leases not renewed", "error", err)
		}
		return
	}
	c.renewed(held, sent, rep)
}

func (c *Client) renewed(held map[uint64]*Volume, sent int64, rep *metapb.RenewReply) {
	for _, file := range rep.Lost {
		if v := held[file]; v != nil {
			if !v.lease.given.Load() {
				v.lose("the metadata servers say it is not ours")
			}
			delete(held, file)
		}
	}
	for _, info := range rep.Changed {
		if v := held[info.Id]; v != nil {
			v.resize(int64(info.Size))
			v.hearLosses(info.Losses)
		}
	}
	for _, v := range held {
		stopped := !v.leaseValid()
		if v.lease.grant(sent, rep.LeaseMs); stopped {
			v.log.Info("lease renewed after a pause")
			v.unpause()
			v.wake()
		}
	}
}

// lose stops the volume for good; the repair goroutine fails what waits. Locks may be held.
func (v *Volume) lose(why string) {
	if v.lease.lost.Swap(true) {
		return
	}
	v.lease.why.Store(why)
	level := slog.LevelError
	if v.opt.brief {
		level = slog.LevelInfo
	}
	v.log.Log(context.Background(), level, "lease lost", "reason", why)
	v.filler.cancel()
	v.wake()
}

// park keeps a batch for when the lease is renewed.
func (v *Volume) park(batch []*block.Request) {
	v.pausedMu.Lock()
	v.paused = append(v.paused, batch...)
	v.pausedMu.Unlock()
	if v.leaseValid() || v.lease.lost.Load() { // it came back meanwhile
		v.unpause()
	}
}

// unpause starts what was parked.
func (v *Volume) unpause() {
	v.pausedMu.Lock()
	batch := v.paused
	v.paused = nil
	v.pausedMu.Unlock()
	if len(batch) > 0 {
		v.submit(batch)
	}
}

// Lease tells by what right the volume is used: the file, the epoch that it was opened with, and the client's identity. All stay as they are, also
// when the lease has been lost.
func (v *Volume) Lease() (file, epoch uint64, client [16]byte) {
	return v.file, v.epoch, v.c.cfg.Identity.ID
}
