package cs

import (
	"testing"
	"testing/synctest"
	"time"
)

// Several pulls together are no faster than the limit, nor is one much slower.
func TestPullsShareTheServersRate(t *testing.T) {
	const rate, piece, pulls, pieces = 10 << 20, 128 << 10, 4, 40
	synctest.Test(t, func(t *testing.T) {
		var l limiter
		l.set(rate)
		start, done := time.Now(), make(chan struct{})
		for range pulls {
			go func() {
				for range pieces {
					if err := l.wait(t.Context(), piece); err != nil {
						t.Error(err)
					}
				}
				done <- struct{}{}
			}()
		}
		for range pulls {
			<-done
		}
		want := time.Duration(float64(pulls*pieces*piece) / rate * float64(time.Second))
		if took := time.Since(start); took < want-want/10 || took > want+want/10 {
			t.Errorf("it took %v, want about %v", took, want)
		}
	})
}

func TestWithoutARateNothingWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l limiter
		start := time.Now()
		for range 1000 {
			if err := l.wait(t.Context(), 1<<20); err != nil {
				t.Fatal(err)
			}
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("it took %v", took)
		}
	})
}
