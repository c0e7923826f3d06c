package sessions

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
)

// far is a session whose other end is the test.
func far(t *testing.T) (*Session, context.CancelFunc) {
	t.Helper()
	r := NewRegistry(table(t), slog.New(slog.DiscardHandler), func() {})
	s := newSession(r, &metapb.Register{Id: 1025, Incarnation: 1})
	if err := r.enter(s); err != nil {
		t.Fatal(err)
	}
	s.admitted.Store(true)
	go s.runLane()
	return s, func() { s.End(ErrGone); r.leave(s) }
}

// next takes one command off the session's way.
func next(t *testing.T, s *Session) *metapb.Command {
	t.Helper()
	synctest.Wait()
	select {
	case m := <-s.out:
		return m.GetCommand()
	default:
		t.Fatal("no command")
		return nil
	}
}

func none(t *testing.T, s *Session) {
	t.Helper()
	synctest.Wait()
	select {
	case m := <-s.out:
		t.Fatalf("%v is sent", m)
	default:
	}
}

func chunksAt(indices ...uint32) (out []*metapb.ChunkAt) {
	for _, i := range indices {
		out = append(out, &metapb.ChunkAt{File: 16, Index: i, Version: 2})
	}
	return out
}

func TestCommandsOfTheLaneFollowOneAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, end := far(t)
		defer end()
		first := s.Raise(chunksAt(0))
		synctest.Wait()
		second, third := s.Raise(chunksAt(1, 2)), s.Raise(chunksAt(3))
		fourth := s.Promote(chunksAt(4))
		c := next(t, s)
		none(t, s)
		s.result(&metapb.Result{Id: c.Id})
		if errs := first.Errs(); len(errs) != 1 || errs[0] != nil {
			t.Fatal(errs)
		}
		c = next(t, s)
		if n := len(c.GetRaise().GetChunks()); n != 3 {
			t.Fatalf("%d chunks in one command, want those of both that waited", n)
		}
		s.result(&metapb.Result{Id: c.Id, Errors: []string{"", "no such replica", ""}})
		if errs := second.Errs(); errs[0] != nil || errs[1] == nil {
			t.Errorf("%v", errs)
		}
		if errs := third.Errs(); errs[0] != nil {
			t.Errorf("%v", errs)
		}
		c = next(t, s)
		s.result(&metapb.Result{Id: c.Id, Error: "input/output error"})
		var said *CommandError
		if errs := fourth.Errs(); !errors.As(errs[0], &said) {
			t.Errorf("%v", errs)
		}
	})
}

func TestALaneThatIsNotAnsweredEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, end := far(t)
		defer end()
		p, q := s.Raise(chunksAt(0)), s.Promote(chunksAt(1))
		time.Sleep(laneTimeout + time.Millisecond)
		synctest.Wait()
		if s.Up() || p.Errs()[0] == nil || q.Errs()[0] == nil {
			t.Errorf("up %v, %v, %v", s.Up(), p.Errs(), q.Errs())
		}
	})
}

// A Demote or Remove that was decided before a Prepare must not hit what was prepared.
func TestWhatIsBeingPreparedIsNotDiscarded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, end := far(t)
		defer end()
		k := fsm.ChunkKey{File: 16, Index: 4} // 1025 is no member of it
		p := s.Prepare([]*metapb.PrepareChunk{{File: 16, Index: 4, Version: 3, Syncing: true}})
		c := next(t, s)
		s.result(&metapb.Result{Id: c.Id})
		if kept, _ := s.Remove([]fsm.ChunkKey{k}); len(kept) != 0 {
			t.Error("it is removed")
		}
		if kept, _ := s.Demote([]fsm.ChunkKey{k}); len(kept) != 0 {
			t.Error("it is demoted")
		}
		none(t, s)
		p.Release()
		if kept, _ := s.Remove([]fsm.ChunkKey{k, {File: 16, Index: 0}}); len(kept) != 1 || kept[0] != k {
			t.Errorf("%v are removed; a member's replica never is", kept)
		}
	})
}

func TestAMembersReplicaIsNotPreparedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, end := far(t)
		defer end()
		p := s.Prepare([]*metapb.PrepareChunk{{File: 16, Index: 0, Version: 2, Syncing: true}})
		if err := p.Errs()[0]; !errors.Is(err, ErrMember) {
			t.Errorf("%v, want ErrMember", err)
		}
		none(t, s)
	})
}

func TestACommandIsWaitedForAsLongAsTheServerSaysThatItGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, end := far(t)
		defer end()
		done := make(chan error)
		go func() {
			_, err := s.Do(context.Background(), &metapb.Command{Command: &metapb.Command_Pull{Pull: &metapb.Pull{}}}, time.Second)
			done <- err
		}()
		c := next(t, s)
		for range 10 {
			time.Sleep(900 * time.Millisecond)
			s.progress(&metapb.Progress{Id: c.Id})
		}
		select {
		case err := <-done:
			t.Fatalf("given up: %v", err)
		default:
		}
		if err := <-done; !errors.Is(err, ErrTimeout) {
			t.Errorf("silent for a second: %v", err)
		}
		s.result(&metapb.Result{Id: c.Id}) // too late, and harmless
	})
}
