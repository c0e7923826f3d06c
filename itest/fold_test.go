package itest

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"pstorage/itest/check"
	"pstorage/itest/cluster"
	"pstorage/itest/nbd"
)

// diskUse is what the replicas take on the chunk servers' disks.
func diskUse(t *testing.T, c *cluster.Cluster) (total int64) {
	t.Helper()
	for i := range c.CS {
		err := filepath.WalkDir(filepath.Join(c.CSDir(i), "store", "chunks"), func(_ string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err == nil {
				total += info.Sys().(*syscall.Stat_t).Blocks * 512
			}
			return err
		})
		pass(t, err)
	}
	return total
}

// awaitFolded returns when no layer of a deleted snapshot is left.
func awaitFolded(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx := newContext(t)
	for {
		var status struct{ Recovery struct{ Folding int } }
		text := command(t, c, "stat", "--json")
		if err := json.Unmarshal([]byte(text), &status); err != nil {
			t.Fatal(err)
		}
		if status.Recovery.Folding == 0 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the snapshots are not merged:\n%s", text)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func deleteSnapshot(t *testing.T, c *cluster.Cluster, s shot) {
	t.Helper()
	id, err := hex.DecodeString(strings.ReplaceAll(s.UUID, "-", ""))
	pass(t, err)
	pass(t, c.DeleteSnapshot(newContext(t), id))
}

func readInto(t *testing.T, client *nbd.Client, p []byte) {
	t.Helper()
	for at := 0; at < len(p); at += mib {
		pass(t, client.Read(p[at:at+mib], int64(at)))
	}
}

// Deleted snapshots give their space back: what was overwritten since, and no more.
func TestDeletedSnapshotsGiveSpaceBack(t *testing.T) {
	c := newCluster(t, cluster.Options{})
	command(t, c, "create", "v", "-s", "32M", "--chunk-size", "4M")
	client := connect(t, c.NBD("v"))
	defer client.Close()
	random := rand.NewChaCha8([32]byte{1})
	data := make([]byte, 24*mib)
	_, _ = random.Read(data)
	write := func(from, to int) {
		for at := from; at < to; at += mib {
			pass(t, client.Write(data[at:at+mib], int64(at)))
		}
		pass(t, client.Flush())
	}
	write(0, len(data))
	before := diskUse(t, c)
	for i := range 3 {
		command(t, c, "snapshot", "create", "v", "--name", fmt.Sprint("s", i))
		part := data[i*4*mib : (i+2)*4*mib]
		_, _ = random.Read(part)
		write(i*4*mib, (i+2)*4*mib)
	}
	if more := diskUse(t, c) - before; more < 3*3*8*mib {
		t.Errorf("three snapshots take %d bytes more", more)
	}
	kept := make([]byte, len(data))
	frozen := connect(t, c.NBD("v@s1"))
	defer frozen.Close()
	readInto(t, frozen, kept)
	all := shotsOf(t, c, "v")
	deleteSnapshot(t, c, all[0])
	deleteSnapshot(t, c, all[2])
	awaitFolded(t, c)
	got := make([]byte, len(data))
	readInto(t, client, got)
	if !bytes.Equal(got, data) {
		t.Error("the volume has changed")
	}
	readInto(t, frozen, got)
	if !bytes.Equal(got, kept) {
		t.Error("the snapshot that was kept has changed")
	}
	deleteSnapshot(t, c, all[1])
	awaitFolded(t, c)
	if now := diskUse(t, c); now > before*103/100 {
		t.Errorf("%d bytes are used, %d before the snapshots", now, before)
	}
	readInto(t, client, got)
	if !bytes.Equal(got, data) {
		t.Error("the volume has changed")
	}
}

// Snapshots come and go under load, and chunk servers are killed.
func TestSnapshotsAreMergedUnderLoadWhileServersDie(t *testing.T) {
	c := newCluster(t, cluster.Options{})
	command(t, c, "create", "v", "-s", "32M", "--chunk-size", "1M")
	model := check.New(32*mib, 17)
	client := connect(t, c.NBD("v"))
	defer client.Close()
	ctx := newContext(t)
	whileChanging(t, model, client, func() {
		for i := range c.CS {
			command(t, c, "snapshot", "create", "v", "--name", fmt.Sprint("a", i))
			command(t, c, "snapshot", "create", "v", "--name", fmt.Sprint("b", i))
			all := shotsOf(t, c, "v")
			deleteSnapshot(t, c, all[0])
			c.CS[i].Kill()
			deleteSnapshot(t, c, all[len(all)-1])
			pass(t, c.StartCS(ctx, i))
			awaitHealthy(t, ctx, c)
		}
	})
	awaitFolded(t, c)
	pass(t, model.Verify(client))
}
