package wire

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// HelloTimeout is how long either side waits for the other's part of the opening.
const HelloTimeout = 5 * time.Second

// unixPrefix begins the address of a unix socket: "unix:/path".
const unixPrefix = "unix:"

// Network splits an address into the network and the address of package net.
func Network(addr string) (network, address string) {
	if path, ok := strings.CutPrefix(addr, unixPrefix); ok {
		return "unix", path
	}
	return "tcp", addr
}

// Dial opens a session with the chunk server at addr, HOST:PORT or unix:/path. It returns when the server has
// answered the Hello: older sessions of the client are over then.
func Dial(ctx context.Context, addr string, hello Hello) (*Conn, error) {
	network, address := Network(addr)
	var d net.Dialer
	nc, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConn, err)
	}
	return Open(ctx, nc, addr, hello)
}

// Open opens a session with the chunk server at addr over a connection that was just made; it closes that if it fails.
func Open(ctx context.Context, nc net.Conn, addr string, hello Hello) (*Conn, error) {
	if err := greet(ctx, nc, &hello); err != nil {
		nc.Close()
		return nil, fmt.Errorf("chunk server at %s: %w", addr, err)
	}
	c, err := newConn(nc, addr)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return c, nil
}

// greet exchanges the Hello and its reply.
func greet(ctx context.Context, nc net.Conn, hello *Hello) error {
	deadline := time.Now().Add(HelloTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := nc.SetDeadline(deadline); err != nil {
		return fmt.Errorf("%w: %w", ErrConn, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	err := exchangeHello(nc, hello)
	if !stop() && err == nil {
		err = fmt.Errorf("%w: %w", ErrConn, context.Cause(ctx))
	}
	if err != nil {
		return err
	}
	if err := nc.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("%w: %w", ErrConn, err)
	}
	return nil
}

func exchangeHello(nc net.Conn, hello *Hello) error {
	frame := make([]byte, RequestSize, RequestSize+helloSize)
	(&request{op: OpHello, payload: helloSize}).put(frame)
	if _, err := nc.Write(AppendHello(frame, hello)); err != nil {
		return fmt.Errorf("%w: %w", ErrConn, err)
	}
	var b [ReplySize]byte
	if _, err := io.ReadFull(nc, b[:]); err != nil {
		return fmt.Errorf("%w: no answer to hello: %w", ErrConn, err)
	}
	var r reply
	if err := r.get(b[:]); err != nil {
		return err
	}
	switch {
	case r.op != OpHello || r.payload != 0:
		return fmt.Errorf("%w: hello answered with %v", ErrProtocol, r.op)
	case r.status != OK:
		return fmt.Errorf("%w: %v", ErrRefused, r.status)
	}
	return nil
}
