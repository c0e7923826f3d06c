package meta

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
)

// An answer to a question that was asked before the call proves nothing; those who call while one is under way share the next.
func TestAVerificationBeginsAfterTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := verifier{asking: new(sync.WaitGroup)}
		asked := 0
		answer := make(chan error)
		ask := func() error { asked++; return <-answer }
		results := make(chan error, 10)
		call := func() { results <- v.do(context.Background(), ask) }
		go call()
		synctest.Wait()
		for range 5 {
			go call()
		}
		synctest.Wait()
		answer <- nil
		if err := <-results; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(results) != 0 {
			t.Fatal("a later call took an earlier answer")
		}
		lost := errors.New("deposed")
		answer <- lost
		for range 5 {
			if err := <-results; err != lost {
				t.Fatalf("%v, want %v", err, lost)
			}
		}
		if asked != 2 {
			t.Errorf("asked %d times for six calls", asked)
		}
	})
}
