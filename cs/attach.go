package cs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"

	"pstorage/meta/metapb"
)

const (
	// heartbeatEvery is agreed with the metadata servers, which call a server inactive after five without.
	heartbeatEvery = time.Second
	// firstBackoff and lastBackoff are between two attempts to attach. A new leader allocates no chunks before its chunk servers are
	// there, so they look for it often.
	firstBackoff = 50 * time.Millisecond
	lastBackoff  = 500 * time.Millisecond
	// inventoryPage is how many replicas one page of the inventory has.
	inventoryPage = 8192
	// sendQueue is how many messages wait for the stream; what makes more of them waits.
	sendQueue = 256
)

// stream is an attachment to the metadata servers' leader.
type stream = grpc.BidiStreamingClient[metapb.FromServer, metapb.ToServer]

// attachment is what there is as long as one stream lives.
type attachment struct {
	s    *Server
	st   stream
	ctx  context.Context // ends with the stream
	send chan *metapb.FromServer
	cmds chan *metapb.Command

	scrubs scrubs
	folds  sync.WaitGroup // commands to fold
}

// attach keeps the server attached until ctx ends.
func (s *Server) attach(ctx context.Context) {
	wait := firstBackoff
	for ctx.Err() == nil {
		admitted, err := s.attachOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, ErrRemoved) {
			s.log.Error("the chunk server ends", "error", err)
			s.removed = err
			close(s.failed)
			return
		}
		if admitted {
			wait = firstBackoff
		}
		s.log.Warn("not attached to the metadata servers", "error", err, "again in", wait)
		select {
		case <-ctx.Done():
		case <-time.After(wait/2 + rand.N(wait)):
		}
		wait = min(2*wait, lastBackoff)
	}
}

// attachOnce runs one attachment to its end; when it returns nothing of it is being executed.
func (s *Server) attachOnce(ctx context.Context) (admitted bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	st, err := s.meta.Attach(ctx)
	if err != nil {
		return false, err
	}
	if err := s.introduce(st); err != nil {
		return false, streamError(st, err)
	}
	if err := s.admission(st); err != nil {
		return false, err
	}
	s.count.attached.Store(true)
	s.count.attachments.Add(1)
	defer s.count.attached.Store(false)
	s.log.Info("admitted to the cluster")
	s.repeatTroubles()
	a := &attachment{s: s, st: st, ctx: ctx, send: make(chan *metapb.FromServer, sendQueue),
		cmds: make(chan *metapb.Command, commandQueue), scrubs: scrubs{turn: make(chan struct{}, 1)}}
	return true, a.run(cancel)
}

// streamError is why a stream failed: a failed Send says nothing, the status comes with Recv.
func streamError(st stream, err error) error {
	if !errors.Is(err, io.EOF) {
		return err
	}
	for {
		if _, err := st.Recv(); err != nil {
			return err
		}
	}
}

// introduce sends who the server is and what it has.
func (s *Server) introduce(st stream) error {
	err := st.Send(&metapb.FromServer{Message: &metapb.FromServer_Register{Register: &metapb.Register{
		Id: s.id.Server, ClusterId: s.id.ClusterID[:], Address: s.Addr(), Host: s.id.Host, BootId: s.boot,
		Incarnation: s.born, Version: s.cfg.Version}}})
	if err != nil {
		return err
	}
	for _, page := range s.inventory() {
		if err := st.Send(&metapb.FromServer{Message: &metapb.FromServer_Inventory{Inventory: page}}); err != nil {
			return err
		}
	}
	return nil
}

// inventory returns the replicas in pages, of which the last, perhaps the only and an empty one, says so.
func (s *Server) inventory() []*metapb.InventoryPage {
	pages := []*metapb.InventoryPage{{}}
	n := uint64(0)
	for r := range s.engine.Inventory {
		page := pages[len(pages)-1]
		if len(page.Replicas) == inventoryPage {
			page = &metapb.InventoryPage{}
			pages = append(pages, page)
		}
		page.Replicas = append(page.Replicas, &metapb.Replica{File: r.ID.File, Index: r.ID.Index, Version: r.Version,
			State: uint32(r.State), Suspicion: uint32(r.Suspect), Damaged: r.Damaged})
		n++
	}
	pages[len(pages)-1].Last = true
	s.count.replicas.Store(n)
	return pages
}

// run serves the attachment until the stream ends.
func (a *attachment) run(cancel context.CancelFunc) error {
	var err error
	a.scrubs.wg.Go(func() {
		if a.scrubs.take(a.ctx) {
			defer a.scrubs.pass()
			a.sayDates()
		}
	})
	ended := make(chan struct{}, 2)
	go func() {
		defer func() { ended <- struct{}{} }()
		defer cancel() // a stream that does not take what is sent is of no use
		a.sender()
	}()
	go func() {
		defer func() { ended <- struct{}{} }()
		a.executor()
	}()
	for err == nil {
		err = a.receive()
	}
	cancel()
	close(a.cmds)
	<-ended
	<-ended
	a.s.pulls.end()
	a.scrubs.wg.Wait()
	a.folds.Wait()
	return err
}

func (a *attachment) receive() error {
	m, err := a.st.Recv()
	if err != nil {
		return err
	}
	c := m.GetCommand()
	if c == nil {
		return fmt.Errorf("metadata server sent %T where a command is due", m.GetMessage())
	}
	select {
	case a.cmds <- c:
		return nil
	case <-a.ctx.Done():
		return a.ctx.Err()
	}
}

// say queues a message; it is given up with the attachment.
func (a *attachment) say(m *metapb.FromServer) {
	select {
	case a.send <- m:
	case <-a.ctx.Done():
	}
}

// sender sends all that goes to the stream.
func (a *attachment) sender() {
	beat := time.NewTicker(heartbeatEvery)
	defer beat.Stop()
	err := a.st.Send(a.s.heartbeat())
	for err == nil {
		select {
		case <-a.ctx.Done():
			return
		case m := <-a.send:
			err = a.st.Send(m)
		case <-a.s.news:
			for _, m := range a.s.unsaidTroubles() {
				if err = a.st.Send(m); err != nil {
					break
				}
			}
		case <-beat.C:
			err = a.st.Send(a.s.heartbeat())
		}
	}
}
