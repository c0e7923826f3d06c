package target

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"pstorage/blockstore/block"
)

func TestLUNsAreTheVolumesOfTargetsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("/a", "/iscsi/", "/iscsi/t/", "/iscsi/t/1")
		v := newVolumes(c, c.open)
		luns := v.LUNs()
		for _, name := range []string{"a", "iscsi", "/iscsi/t/1", "iscsi//t/1", "iscsi/t/2", "iscsi/../a", "iscsi/t/../../a", ""} {
			if _, _, err := luns.Open(t.Context(), name); !errors.Is(err, block.ErrNotFound) {
				t.Errorf("%q: %v", name, err)
			}
		}
		d, info, err := luns.Open(t.Context(), "iscsi/t/1")
		if err != nil || info.Name != "iscsi/t/1" || info.Size != 1<<20 {
			t.Fatal(info, err)
		}
		if all, err := luns.List(t.Context()); len(all) > 0 || err != nil {
			t.Error(all, err)
		}
		d.Close()
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestReleasedVolumeIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster("/iscsi/t/1")
		v := newVolumes(c, c.open)
		luns := v.LUNs()
		release := func() time.Duration {
			began := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := luns.Release(ctx, "iscsi/t/1"); err != nil {
				t.Error(err)
			}
			return time.Since(began)
		}
		open := func() block.Device {
			d, _, err := luns.Open(t.Context(), "iscsi/t/1")
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		release() // nothing is open
		first, second := open(), open()
		first.Close()
		if took := release(); took > 0 || c.devices[0].isClosed() {
			t.Errorf("release of a volume in use: after %v, closed %v", took, c.devices[0].isClosed())
		}
		second.Close()
		if took := release(); took >= linger || !c.devices[0].isClosed() {
			t.Errorf("release: after %v, closed %v", took, c.devices[0].isClosed())
		}
		open().Close()
		time.Sleep(linger - time.Millisecond)
		if c.devices[1].isClosed() {
			t.Error("a volume that was released once no longer lingers")
		}
		time.Sleep(2 * time.Millisecond) // it is closing
		if took := release(); took == 0 || !c.devices[1].isClosed() {
			t.Errorf("release of a volume that is closing: after %v, closed %v", took, c.devices[1].isClosed())
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	})
}
