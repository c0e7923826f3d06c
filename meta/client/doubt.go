package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/metapb"
)

const (
	// doubtAfter is how long a server may take to answer a call before the others are asked who leads; doubtEvery, the pause between
	// two such questions; streamDoubt, that for streams, on which silence means nothing.
	doubtAfter  = 300 * time.Millisecond
	doubtEvery  = 500 * time.Millisecond
	streamDoubt = time.Second
	// membersTimeout bounds one question.
	membersTimeout = time.Second
	// refreshEvery is how old the list of servers may become.
	refreshEvery = 10 * time.Second
)

// errMoved ends an attempt: another server leads now.
var errMoved = errors.New("another metadata server leads now")

// attempt makes one call at a server. A server that was stopped, or cut off, answers nothing, and its connection looks alive for long: so
// when it takes its time the others are asked who leads, and if that is another one the attempt ends with UNAVAILABLE.
func (c *Client) attempt(ctx context.Context, address string, call func(context.Context) error) (leader string, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var found string
	doubt := time.AfterFunc(doubtAfter, func() {
		if l := c.awaitOther(ctx, address); l != "" {
			found = l
			cancel(errMoved)
		}
	})
	defer doubt.Stop()
	err = call(ctx)
	if err != nil && errors.Is(context.Cause(ctx), errMoved) {
		return found, status.Errorf(codes.Unavailable, "metadata server %s: %v", address, errMoved)
	}
	return "", err
}

// awaitOther asks again and again who leads, until that is another server, which it returns, or the context ends.
func (c *Client) awaitOther(ctx context.Context, address string) string {
	for ctx.Err() == nil {
		if l := c.askAll(ctx, address); l != "" && l != address {
			return l
		}
		if pause(ctx, doubtEvery) != nil {
			break
		}
	}
	return ""
}

// askAll asks all servers but one who leads, and believes the one that speaks of the latest term.
func (c *Client) askAll(ctx context.Context, address string) (leader string) {
	ctx, cancel := context.WithTimeout(ctx, membersTimeout)
	defer cancel()
	var mu sync.Mutex
	var term uint64
	var all sync.WaitGroup
	for _, other := range c.others(address) {
		all.Go(func() {
			r, err := c.membersAt(ctx, other)
			mu.Lock()
			defer mu.Unlock()
			if err == nil && r.Term >= term && r.Leader != "" {
				leader, term = r.Leader, r.Term
			}
		})
	}
	all.Wait()
	return c.believe(leader, term)
}

// askOne asks one of the others.
func (c *Client) askOne(ctx context.Context, address string) string {
	others := c.others(address)
	if len(others) == 0 {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, membersTimeout)
	defer cancel()
	r, err := c.membersAt(ctx, others[rand.N(len(others))])
	if err != nil {
		return ""
	}
	return c.believe(r.Leader, r.Term)
}

// believe takes an answer unless a later term was heard of already.
func (c *Client) believe(leader string, term uint64) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if term < c.term {
		return ""
	}
	c.term = term
	return leader
}

func (c *Client) others(address string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.list), func(a string) bool { return a == address })
}

// Ask asks the metadata server at one client address who the others are and who leads, on a connection of its own: whether that server
// answers now is what the caller wants to know.
func Ask(ctx context.Context, address string, options ...Option) (*metapb.MembersReply, error) {
	c, err := New([]string{address}, options...)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.membersAt(ctx, address)
}

// membersAt asks one server, once.
func (c *Client) membersAt(ctx context.Context, address string) (*metapb.MembersReply, error) {
	conn, err := c.conn(address)
	if err != nil {
		return nil, err
	}
	return metapb.NewMetaClient(conn).Members(ctx, &metapb.MembersRequest{})
}

// refresh asks the server that has just answered as leader who the metadata servers are, if that was not asked lately.
func (c *Client) refresh(address string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || c.refreshing || address == c.refreshedAt && time.Since(c.refreshed) < refreshEvery {
		return
	}
	c.refreshing = true
	go c.fetch(address)
}

func (c *Client) fetch(address string) {
	ctx, cancel := context.WithTimeout(c.alive, membersTimeout)
	defer cancel()
	r, err := c.membersAt(ctx, address)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refreshing, c.refreshed, c.refreshedAt = false, time.Now(), address
	if err != nil || c.closed || r.Leader != address {
		return
	}
	c.adopt(r.ClientAddresses)
}

// adopt makes the list of what the leader says. What the client was made with stays, at the end: should all servers have moved, an
// administrator can only have changed that. c.mu is held.
func (c *Client) adopt(addresses []string) {
	list := make([]string, 0, maxLearned)
	for _, a := range slices.Concat(addresses, c.given) {
		if a != "" && !slices.Contains(list, a) && len(list) < maxLearned {
			list = append(list, a)
		}
	}
	if !slices.Equal(list, c.list) && c.learned != nil {
		c.learned(slices.Clone(addresses))
	}
	c.list = list
}

// stream ends when its server does not lead any more.
type stream struct {
	grpc.ClientStream
	client  *Client
	address string
	end     context.CancelCauseFunc
}

// newStream opens a stream, and watches over its server as long as it is open.
func (c *Client) newStream(ctx context.Context, address string, open func(context.Context) (grpc.ClientStream, error)) (*stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	s, err := open(ctx)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	go c.watchOver(ctx, address, cancel)
	return &stream{ClientStream: s, client: c, address: address, end: cancel}, nil
}

// watchOver keeps the list of servers new as long as a stream is open, and ends the stream when another server leads.
func (c *Client) watchOver(ctx context.Context, address string, cancel context.CancelCauseFunc) {
	for pause(ctx, streamDoubt) == nil {
		c.refresh(address)
		if l := c.askOne(ctx, address); l != "" && l != address {
			c.missed(address, l)
			cancel(errMoved)
		}
	}
}

// RecvMsg is the stream's.
func (s *stream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err == nil {
		s.client.refresh(s.address)
		return nil
	}
	if errors.Is(context.Cause(s.Context()), errMoved) {
		err = status.Errorf(codes.Unavailable, "metadata server %s: %v", s.address, errMoved)
	}
	s.end(nil)
	if status.Code(err) == codes.Unavailable {
		hint, _ := notLeader(err)
		s.client.missed(s.address, hint)
	}
	return err
}
