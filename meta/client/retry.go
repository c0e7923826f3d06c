package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/metapb"
)

// Invoke is one unary call, repeated until a leader has answered it or the context has ended.
func (c *Client) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return c.repeat(ctx, func(ctx context.Context, conn *grpc.ClientConn) error {
		return conn.Invoke(ctx, method, args, reply, opts...)
	})
}

// repeat runs one attempt after the other. A hint is followed at once; after each full round it pauses.
func (c *Client) repeat(ctx context.Context, call func(context.Context, *grpc.ClientConn) error) error {
	wait, hops := firstPause, 0
	for {
		address := c.Leader()
		conn, err := c.conn(address)
		if err != nil {
			return err
		}
		leader, err := c.attempt(ctx, address, func(ctx context.Context) error { return call(ctx, conn) })
		switch {
		case status.Code(err) == codes.Unavailable:
		case err == nil:
			c.refresh(address)
			return nil
		default:
			if ctx.Err() != nil {
				c.missed(address, "") // it may never answer: the next call begins elsewhere
			}
			return err
		}
		if attempts := attemptsOf(ctx); attempts != nil {
			attempts.failed(err)
		}
		hint, follower := notLeader(err)
		if leader != "" {
			hint = leader
		}
		var wrapped bool
		if follower || !answered(err) {
			wrapped = c.missed(address, hint)
		} else {
			wrapped = true // the leader itself says: not now
		}
		if hops++; !wrapped && hops < maxLearned {
			continue
		}
		if pause(ctx, jitter(wait)) != nil {
			return gaveUp(ctx, err)
		}
		wait, hops = min(2*wait, lastPause), 0
	}
}

func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }

// gaveUp keeps the reason that the servers gave: the caller's deadline alone says nothing.
func gaveUp(ctx context.Context, last error) error {
	code := codes.Unavailable
	if errors.Is(ctx.Err(), context.Canceled) {
		code = codes.Canceled
	}
	return status.Errorf(code, "%s; gave up: %v", status.Convert(last).Message(), ctx.Err())
}

// notLeader tells whether the error is a server's that does not lead, and where it says the leader is.
func notLeader(err error) (leader string, is bool) {
	for _, d := range status.Convert(err).Details() {
		if n, ok := d.(*metapb.NotLeader); ok {
			return n.Leader, true
		}
	}
	return "", false
}

// answered tells an answer of a server (it marks them with a detail) from a connection that failed.
func answered(err error) bool { return len(status.Convert(err).Details()) > 0 }

// NewStream opens a stream at the server that is thought to lead. When the stream fails the next one is opened elsewhere, or where the
// server said.
func (c *Client) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	address := c.Leader()
	conn, err := c.conn(address)
	if err != nil {
		return nil, err
	}
	s, err := c.newStream(ctx, address, func(ctx context.Context) (grpc.ClientStream, error) {
		return conn.NewStream(ctx, desc, method, opts...)
	})
	if err != nil {
		c.missed(address, "")
		return nil, err
	}
	return s, nil
}
