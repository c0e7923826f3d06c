package blockstore

import (
	"testing"
	"testing/synctest"
)

func TestARenewalThatMeetsACloseDoesNotSpoilIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCluster(3, testSize, 3, 2)
		v := k.open(t, OpenOptions{})
		if err := write(v, 0, 1); err != nil {
			t.Fatal(err)
		}
		k.meta.set(func() { k.meta.closing = v.c.renew })
		if err := v.Close(); err != nil || !k.meta.clean {
			t.Errorf("closed cleanly: %v, %v", k.meta.clean, err)
		}
		k.meta.set(func() { k.meta.closing = nil })
		if err := v.c.Close(); err != nil {
			t.Error(err)
		}
	})
}
