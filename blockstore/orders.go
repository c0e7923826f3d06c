package blockstore

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/metapb"
)

const (
	// ordersBackoff is how long the client waits before it asks for orders again; longer where the leader knows of none.
	ordersBackoff = 100 * time.Millisecond
	ordersUnknown = 5 * time.Second
	// openingLimit is how long a volume is waited for that an order names: the metadata servers may have granted its lease just now.
	openingLimit = 2 * time.Second
)

// ordered is one volume's part of an order.
type ordered struct {
	request string
	file    uint64
	flatten bool // it is about flattening
	cancel  bool // which is to end
	late    bool // the snapshot may be flushed when it is taken
}

// takeOrders keeps a stream open to whoever leads the metadata servers, and does what comes: it is there while the client has volumes.
func (c *Client) takeOrders(ctx context.Context) {
	for ctx.Err() == nil {
		wait := ordersBackoff
		if status.Code(c.listen(ctx)) == codes.Unimplemented {
			wait = ordersUnknown
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

func (c *Client) listen(ctx context.Context) error {
	stream, err := c.meta.Orders(ctx, &metapb.OrdersRequest{Client: c.me})
	if err != nil {
		return err
	}
	for {
		o, err := stream.Recv()
		if err != nil {
			return err
		}
		for _, file := range o.Files {
			c.obey(ordered{string(o.Request), file, o.Flatten, o.Cancel, o.Late})
		}
	}
}

// obey holds a volume for a request, unless it does so already: orders come again with each new stream.
func (c *Client) obey(o ordered) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.orders[o] {
		return
	}
	c.orders[o] = true
	c.wg.Go(func() {
		c.carryOut(o)
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.orders, o)
	})
}

func (c *Client) carryOut(o ordered) {
	v := c.awaitVolume(o.file)
	switch {
	case v == nil:
		return
	case o.cancel:
		v.stopFlatten()
		return
	case o.flatten:
		v.startFlatten()
		return
	}
	switch taken, err := v.holdFor([]byte(o.request), o.late); {
	case err != nil:
		v.log.Warn("not held for a snapshot", "error", err)
	default:
		v.log.Info("held for a snapshot", "taken", taken, "layer", v.layer.Load())
	}
}

func (c *Client) awaitVolume(file uint64) *Volume {
	for end := c.now() + int64(openingLimit); ; {
		for _, v := range c.open() {
			if v.file == file && !v.lease.lost.Load() && !v.opt.brief {
				return v
			}
		}
		if c.now() >= end || c.ctx.Err() != nil {
			return nil
		}
		t := time.NewTimer(pollLinks)
		select {
		case <-t.C:
		case <-c.ctx.Done():
		}
		t.Stop()
	}
}
