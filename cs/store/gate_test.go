package store

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestAGateIsHeldByOneAndVirtualTimeGoesOnMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const users = 20
		var g gate
		var all sync.WaitGroup
		inside, begin := 0, time.Now()
		for range users {
			all.Go(func() {
				g.Lock()
				defer g.Unlock()
				if inside++; inside != 1 {
					t.Errorf("%d hold it", inside)
				}
				time.Sleep(time.Second)
				inside--
			})
		}
		all.Wait()
		if d := time.Since(begin); d != users*time.Second {
			t.Errorf("all were through after %v", d)
		}
	})
}
