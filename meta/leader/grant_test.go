package leader

import (
	"testing"
	"testing/synctest"
	"time"
)

// R1: between the moment a lease was found to have expired and the grant to another, the old holder does not renew.
func TestNobodyRenewsWhileAnotherIsBeingGranted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLeases()
		if left := l.beginGrant(1, false); left != LeaseTime {
			t.Fatalf("a lease that counts as just renewed has %v left", left)
		}
		time.Sleep(LeaseTime)
		if left := l.beginGrant(1, false); left != 0 {
			t.Fatalf("%v left after a full lease", left)
		}
		if refused := l.renew([]uint64{1, 2}); !refused[1] || refused[2] {
			t.Errorf("refused: %v", refused)
		}
		l.endGrant(1, false) // it was not granted after all
		if refused := l.renew([]uint64{1}); refused[1] {
			t.Error("refused although nobody has it")
		}
		if left := l.beginGrant(1, false); left != LeaseTime {
			t.Errorf("%v left just after a renewal", left)
		}
		if left := l.beginGrant(1, true); left != 0 {
			t.Errorf("%v left for who takes his own", left)
		}
		l.endGrant(1, true)
		if left := l.beginGrant(1, false); left != LeaseTime {
			t.Errorf("%v left just after a grant", left)
		}
	})
}
