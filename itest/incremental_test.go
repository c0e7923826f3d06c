package itest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pstorage/itest/check"
	"pstorage/itest/cluster"
)

// incremental is a folder of backups that QEMU's tools make of a cluster's snapshots.
type incremental struct {
	t   *testing.T
	c   *cluster.Cluster
	dir string
}

// run runs a program in the folder and returns what it says on its standard output.
func (b *incremental) run(name string, args ...string) string {
	b.t.Helper()
	cmd := exec.CommandContext(newContext(b.t), name, args...)
	cmd.Dir = b.dir
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// extent is one of qemu-img map's.
type extent struct {
	Start, Length int64
	Data          bool
}

// dirty lists what has changed in an export since an older snapshot, as QEMU sees it: with a bitmap in place of the allocation, what is dirty is no data.
func (b *incremental) dirty(export, since string) (list [][2]int64) {
	b.t.Helper()
	host, port, _ := strings.Cut(strings.Split(strings.TrimPrefix(b.c.NBD(export), "nbd://"), "/")[0], ":")
	image := fmt.Sprintf("driver=nbd,server.type=inet,server.host=%s,server.port=%s,export=%s,x-dirty-bitmap=qemu:dirty-bitmap:%s", host, port, export, since)
	var all []extent
	if err := json.Unmarshal([]byte(b.run("qemu-img", "map", "--output=json", "--image-opts", image)), &all); err != nil {
		b.t.Fatal(err)
	}
	for _, e := range all {
		if !e.Data {
			list = append(list, [2]int64{e.Start, e.Length})
		}
	}
	return list
}

// back makes an image of what has changed since the one below it was made.
func (b *incremental) back(image, below, export, since string) {
	b.t.Helper()
	b.run("qemu-img", "create", "-q", "-f", "qcow2", "-b", below, "-F", "qcow2", image)
	b.run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", b.c.NBD(export), "-F", "raw", image)
	args := []string{"-C", "-f", "qcow2", image}
	for _, r := range b.dirty(export, since) {
		args = append(args, "-c", fmt.Sprintf("read %d %d", r[0], r[1])) // which copies it up
	}
	b.run("qemu-io", args...)
	b.run("qemu-img", "rebase", "-u", "-f", "qcow2", "-b", below, "-F", "qcow2", image)
}

// same tells whether an image and an export have the same bytes.
func (b *incremental) same(image, export string) bool {
	b.t.Helper()
	cmd := exec.CommandContext(newContext(b.t), "qemu-img", "compare", "-f", "qcow2", "-F", "raw", image, b.c.NBD(export))
	cmd.Dir = b.dir
	out, err := cmd.CombinedOutput()
	if err != nil && !strings.Contains(string(out), "mismatch") {
		b.t.Fatalf("compare %s with %s: %v\n%s", image, export, err, out)
	}
	return err == nil
}

func (b *incremental) write(commands ...string) {
	b.t.Helper()
	args := []string{"-f", "raw", b.c.NBD("v")}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	b.run("qemu-io", args...)
}

// A backup of one snapshot, and of what has changed from each to the next, restores to the newest, byte for byte; what is copied is what was written, though
// snapshots between are deleted.
func TestIncrementalBackupsByQEMURestoreByteForByte(t *testing.T) {
	need(t, "qemu-img", "qemu-io", "nbdinfo")
	c := newCluster(t, cluster.Options{})
	b := &incremental{t, c, t.TempDir()}
	command(t, c, "create", "v", "-s", "64M", "--chunk-size", "1M")
	model := check.New(32*mib, 3)
	client := connect(t, c.NBD("v"))
	defer client.Close()
	pass(t, model.Run(client, 300, nil))
	snapshot := func(name string) { command(t, c, "snapshot", "create", "v", "--name", name) }

	snapshot("one")
	b.run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", c.NBD("v@one"), "full.qcow2")
	if !b.same("full.qcow2", "v@one") {
		t.Fatal("the full backup differs")
	}
	b.write("write -P 1 1M 8k", "discard 4M 64k", "write -P 2 40M 1M")
	snapshot("between")
	b.write("write -P 3 8196k 512", "write -z -u 10M 4k", "write -P 4 63M 1M")
	snapshot("two")
	b.write("write -P 5 1M 4k", "write -P 6 20M 128k")
	snapshot("three")
	command(t, c, "snapshot", "delete", "v@between", "--yes")

	const k = 1 << 10
	want := [][2]int64{{mib, 8 * k}, {4 * mib, 64 * k}, {8196 * k, 4 * k}, {10 * mib, 4 * k}, {40 * mib, mib}, {63 * mib, mib}}
	if got := b.dirty("v@two", "one"); !slices.Equal(got, want) {
		t.Errorf("dirty since one: %d, want %d", got, want)
	}
	b.back("two.qcow2", "full.qcow2", "v@two", "one")
	b.back("three.qcow2", "two.qcow2", "v@three", "two")
	for image, export := range map[string]string{"full.qcow2": "v@one", "two.qcow2": "v@two", "three.qcow2": "v@three"} {
		if !b.same(image, export) {
			t.Errorf("%s restores to something else than %s", image, export)
		}
	}
	if b.same("full.qcow2", "v@two") || b.same("two.qcow2", "v@three") {
		t.Error("nothing has changed between the snapshots")
	}
	if info, err := os.Stat(filepath.Join(b.dir, "three.qcow2")); err != nil || info.Size() > mib {
		t.Errorf("the last backup: %+v, %v", info, err)
	}
	command(t, c, "snapshot", "delete", "v@one", "--yes")
	for since, want := range map[string]bool{"two": true, "one": false, "between": false} {
		out, err := exec.CommandContext(newContext(t), "nbdinfo", "--map=pstorage:changed:"+since, c.NBD("v@three")).CombinedOutput()
		if (err == nil) != want {
			t.Errorf("changes since %s: %v, %s", since, err, out)
		}
	}
}
