package snapshots

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
)

// stream is one of a holder's that orders go to.
type stream struct {
	wake  chan struct{} // there may be more to send
	ended chan struct{} // a newer one of the client has come in its place
}

// Hold notes that a holder holds, and answers when the request is decided.
func (e *Engine) Hold(ctx context.Context, in *metapb.HoldRequest) (*metapb.HoldReply, error) {
	if r, i := e.hold(in); r != nil {
		select {
		case <-r.decided:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if r.taken != nil {
			return &metapb.HoldReply{Taken: true, Layers: r.taken.Files[i].Node.Layers}, nil
		}
	}
	return e.answer(ctx, in)
}

// hold finds the request under way that the client holds a file for.
func (e *Engine) hold(in *metapb.HoldRequest) (*request, int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := e.requests[string(in.Request)]
	if r == nil {
		return nil, 0
	}
	for i, f := range r.command.Files {
		if f.File != in.File || f.Epoch != in.Epoch || !bytes.Equal(f.Client, in.Client.GetId()) {
			continue
		}
		if !r.held[i] {
			r.held[i] = true
			f.Pending = in.Late
			if r.missing--; r.missing == 0 {
				close(r.complete)
			}
		}
		return r, i
	}
	return nil, 0
}

// answer tells from the state what has become of a request that was not committed here.
func (e *Engine) answer(ctx context.Context, in *metapb.HoldRequest) (*metapb.HoldReply, error) {
	if err := e.state.Barrier(ctx); err != nil {
		return nil, err
	}
	out := &metapb.HoldReply{}
	err := e.state.View(func(v *fsm.View) error {
		f, err := v.File(in.File)
		if err != nil {
			return err
		}
		if h := f.Node.Holder; h == nil || f.Node.Epoch != in.Epoch || !bytes.Equal(h.Id, in.Client.GetId()) {
			return fmt.Errorf("%s: epoch %d: %w", f.Path, in.Epoch, fsm.ErrNotHolder)
		}
		out.Layers = f.Node.Layers
		if len(in.Request) == fsm.SnapshotIDSize+nonceSize {
			out.Taken = v.Took(in.Request[:fsm.SnapshotIDSize]) // of the first file: all were taken, or none
		}
		return nil
	})
	return out, err
}

// Orders sends a client what it is to hold, and to flatten, now and later, until ctx ends, or the leader does.
func (e *Engine) Orders(ctx context.Context, client *metapb.Client, send func(*metapb.Order) error) error {
	s, err := e.enter(string(client.GetId()))
	if err != nil {
		return err
	}
	defer e.leave(string(client.GetId()), s)
	sent, flattening := map[string]bool{}, map[uint64]bool{}
	for {
		var orders, more []*metapb.Order
		orders, sent = e.orders(client.GetId(), sent)
		if more, flattening, err = e.flattening(client.GetId(), flattening); err != nil {
			return err
		}
		for _, o := range append(orders, more...) {
			if err := send(o); err != nil {
				return err
			}
		}
		select {
		case <-s.wake:
		case <-s.ended:
			return fmt.Errorf("a newer stream of the client has come in the place of this one: %w", fsm.ErrInvalid)
		case <-ctx.Done():
			return ctx.Err()
		case <-e.alive.Done():
			return ErrEnded
		}
	}
}

func (e *Engine) enter(client string) (*stream, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	own := e.streams[client]
	if len(own) >= maxStreamsOf {
		close(own[0].ended)
		own = slices.Clone(own[1:])
		e.count--
	}
	if e.count >= maxStreams {
		return nil, fmt.Errorf("%d streams of orders: %w", e.count, ErrBusy)
	}
	s := &stream{wake: make(chan struct{}, 1), ended: make(chan struct{})}
	e.streams[client] = append(own, s)
	e.count++
	return s, nil
}

func (e *Engine) leave(client string, s *stream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.Index(e.streams[client], s)
	if i < 0 {
		return
	}
	e.count--
	if e.streams[client] = slices.Delete(e.streams[client], i, i+1); len(e.streams[client]) == 0 {
		delete(e.streams, client)
	}
}

// wake has the streams of a request's holders look for orders. The caller holds mu.
func (e *Engine) wake(r *request) {
	for _, f := range r.command.Files {
		e.wakeOne(f.Client)
	}
}

func (e *Engine) wakeOne(client []byte) {
	for _, s := range e.streams[string(client)] {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Wake has a client's streams look for orders.
func (e *Engine) Wake(client []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.wakeOne(client)
}

// flattening returns orders that tell a client which of its files are to be flattened by now, and which are not any more; told is what the stream has told before.
func (e *Engine) flattening(client []byte, told map[uint64]bool) (out []*metapb.Order, now map[uint64]bool, err error) {
	begin, end := &metapb.Order{Flatten: true}, &metapb.Order{Flatten: true, Cancel: true}
	now = map[uint64]bool{}
	err = e.state.View(func(v *fsm.View) error {
		v.Flattening(func(file uint64, n *fsmpb.Node) bool {
			if !bytes.Equal(n.GetHolder().GetId(), client) {
				return true
			}
			if now[file] = true; !told[file] {
				begin.Files = append(begin.Files, file)
			}
			return true
		})
		return nil
	})
	for file := range told {
		if !now[file] {
			end.Files = append(end.Files, file)
		}
	}
	for _, o := range []*metapb.Order{begin, end} {
		if slices.Sort(o.Files); len(o.Files) > 0 {
			out = append(out, o)
		}
	}
	return out, now, err
}

// orders returns those of a client that were not sent, and the ids of all that are under way.
func (e *Engine) orders(client []byte, sent map[string]bool) (out []*metapb.Order, all map[string]bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	all = map[string]bool{}
	for _, r := range e.requests {
		o := &metapb.Order{Request: []byte(r.id), Late: r.late}
		for _, f := range r.command.Files {
			if bytes.Equal(f.Client, client) {
				o.Files = append(o.Files, f.File)
			}
		}
		if len(o.Files) == 0 {
			continue
		}
		if all[r.id] = true; !sent[r.id] {
			out = append(out, o)
		}
	}
	return out, all
}
