package cs

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// moved tells how many bytes a rebuild may move in a second, in pieces, while do is called every millisecond; spent: it has used up what
// may be moved at once.
func moved(t *testing.T, p *pace, spent, sourceBusy bool, do func()) (bytes int) {
	const piece = 128 << 10
	stop := make(chan struct{})
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
				do()
			}
		}
	}()
	time.Sleep(paceEvery)
	p.busy()
	time.Sleep(paceEvery)
	if spent {
		p.limit.next = time.Now()
	}
	for end := time.Now().Add(time.Second); time.Now().Before(end) && bytes < 4*besideClients; bytes += piece {
		if err := p.wait(t.Context(), piece, sourceBusy); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	time.Sleep(time.Second)
	return bytes
}

func TestRebuildsSlowDownWhileClientsAreBusyAndOnlyThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ops, bytes atomic.Uint64
		p := newPace(func() (uint64, uint64) { return ops.Load(), bytes.Load() })
		slow := func(n int) bool { return n <= besideClients*11/10 && n >= besideClients*9/10 }
		if n := moved(t, p, false, false, func() {}); n < 4*besideClients {
			t.Errorf("%d bytes a second with no clients: want as fast as can be", n)
		}
		if n := moved(t, p, false, false, func() { ops.Add(1) }); n < 4*besideClients {
			t.Errorf("the first %d bytes beside clients: want as fast as can be", n)
		}
		if n := moved(t, p, true, false, func() { ops.Add(1) }); !slow(n) {
			t.Errorf("%d bytes a second beside clients with many requests, want about %d", n, besideClients)
		}
		if n := moved(t, p, true, false, func() { bytes.Add(busyBytes / 500) }); !slow(n) {
			t.Errorf("%d bytes a second beside clients with large requests, want about %d", n, besideClients)
		}
		if n := moved(t, p, false, false, func() {}); n < 4*besideClients {
			t.Errorf("%d bytes a second after the clients have stopped: want as fast as can be", n)
		}
		if n := moved(t, p, true, true, func() {}); !slow(n) {
			t.Errorf("%d bytes a second while the source is busy, want about %d", n, besideClients)
		}
	})
}
