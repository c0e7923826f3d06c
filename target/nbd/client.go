package nbd

import (
	"context"
	"net"
	"net/netip"
)

// Client is who is at the other end of a connection.
type Client struct {
	Address     netip.Addr // not valid: it came through a unix socket
	Certificate string     // the name on the certificate that it has shown; empty: none
}

type clientKey struct{}

// WithClient says on whose behalf a catalog is asked.
func WithClient(ctx context.Context, c Client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// ClientOf tells on whose behalf a catalog is asked; the server says it of every call that it makes.
func ClientOf(ctx context.Context) (c Client, ok bool) {
	c, ok = ctx.Value(clientKey{}).(Client)
	return c, ok
}

// clientAt is the client of a connection that is not encrypted.
func clientAt(nc net.Conn) (c Client) {
	if tcp, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		c.Address = tcp.AddrPort().Addr().Unmap()
	}
	return c
}
