package itest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"pstorage/itest/check"
	"pstorage/itest/cluster"
)

// With real processes: what qemu-img reads of a snapshot over NBD, while the volume is written, is what the volume had when it was taken.
func TestABackupOfASnapshotIsWhatTheVolumeHad(t *testing.T) {
	need(t, "qemu-img")
	c := newCluster(t, cluster.Options{})
	ctx := newContext(t)
	command(t, c, "create", "v", "-s", "64M", "--chunk-size", "1M")
	model := check.New(64*mib, 13)
	client := connect(t, c.NBD("v"))
	defer client.Close()
	pass(t, model.Run(client, 500, nil))
	dir := t.TempDir()
	convert := func(export, name string) []byte {
		t.Helper()
		file := filepath.Join(dir, name)
		if out, err := exec.CommandContext(ctx, "qemu-img", "convert", "-f", "raw", "-O", "raw", c.NBD(export), file).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		data, err := os.ReadFile(file)
		pass(t, err)
		return data
	}
	was := convert("v", "before")
	command(t, c, "snapshot", "create", "v", "--name", "s")
	whileChanging(t, model, client, func() {
		if got := convert("v@s", "backup"); !bytes.Equal(got, was) {
			t.Error("the backup differs from what the volume had")
		}
	})
	if now := convert("v", "after"); bytes.Equal(now, was) {
		t.Error("the volume was not written meanwhile")
	}
	if got := convert("v@s", "again"); !bytes.Equal(got, was) {
		t.Error("the backup differs later")
	}
}
