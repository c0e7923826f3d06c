package nbd

import (
	"context"
	"errors"
	"fmt"
	"net"
)

// Identity names a connection to a server of this project, so that another can take its place. 16 random bytes.
type Identity [identitySize]byte

const (
	identitySize = 16
	// maxReplaced is how many connections one may take the place of.
	maxReplaced = 256
)

// errReplaced ends a connection whose client has another in its place.
var errReplaced = errors.New("the client has a new connection in its place")

// claim is a connection that has told its identity.
type claim struct {
	nc    net.Conn
	conn  *conn         // once it is in transmission; guarded by Server.mu
	ended chan struct{} // closed when nothing of it can reach a volume any more
}

// replace answers optReplace: the connection's identity, then those of the connections in whose place it is.
//
// A client that has lost a connection sends again on a new one what was not answered. Of the old one something may still be on its way, in a socket's buffer
// or in a request that waits: it must not take effect after what the client does next. Whoever knows the identities of its
// old connections has them ended first: the answer comes when they can no longer touch data.
func (n *negotiation) replace(data []byte) {
	if len(data) < identitySize || len(data)%identitySize != 0 || len(data) > (1+maxReplaced)*identitySize {
		n.refuse(repErrInvalid, "malformed identities")
		return
	}
	if n.claims.mine != nil {
		n.refuse(repErrInvalid, "the connection has an identity")
		return
	}
	if !n.claims.take(Identity(data)) {
		n.refuse(repErrPolicy, "another connection has this identity")
		return
	}
	for rest := data[identitySize:]; len(rest) > 0; rest = rest[identitySize:] {
		if err := n.claims.end(n.ctx, Identity(rest)); err != nil {
			n.refuse(repErrPolicy, fmt.Sprintf("a former connection has not ended: %v", err))
			return
		}
	}
	n.reply(repAck, nil)
}

// claims gives a connection that negotiates access to those of others.
type claims struct {
	server *Server
	nc     net.Conn
	mine   *claim // nil: it has no identity
	as     Identity
}

// take gives the connection an identity, unless another has it.
func (c *claims) take(id Identity) bool {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.claims[id] != nil {
		return false
	}
	c.mine, c.as = &claim{nc: c.nc, ended: make(chan struct{})}, id
	s.claims[id] = c.mine
	return true
}

// end ends another connection, if there is one with the identity, and waits until it has.
func (c *claims) end(ctx context.Context, id Identity) error {
	c.server.mu.Lock()
	other := c.server.claims[id]
	var inUse *conn
	if other != nil {
		inUse = other.conn
	}
	c.server.mu.Unlock()
	switch {
	case other == nil || other == c.mine:
		return nil
	case inUse != nil:
		inUse.fail(errReplaced)
	default:
		_ = other.nc.Close() // it ends as soon as it reads
	}
	select {
	case <-other.ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// release says that nothing of the connection can reach a volume any more.
func (c *claims) release() {
	if c.mine == nil {
		return
	}
	c.server.mu.Lock()
	delete(c.server.claims, c.as)
	c.server.mu.Unlock()
	close(c.mine.ended)
}
