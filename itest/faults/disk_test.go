package faults

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"pstorage/itest/cluster"
	"pstorage/itest/nbd"
	"pstorage/itest/scenario"
)

const diskVolume = 96 << 20

// mount mounts something for as long as the test lasts, and skips it where that cannot be.
func mount(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
		t.Skipf("mount %v: %v: %s (needs root, and loop devices)", args, err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", args[len(args)-1]).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
}

// diskLab is a lab of four chunk servers, the first of which is in that folder, with a volume v each of whose chunks has been
// begun on all four.
func diskLab(t *testing.T, first string) (*Lab, context.Context) {
	t.Helper()
	lab, ctx := newLab(t, cluster.Options{Servers: 4, Replicas: "4:2", CSDirs: []string{first}})
	if _, err := lab.Run(ctx, "create", "v", "-s", "96M", "--chunk-size", "4M"); err != nil {
		t.Fatal(err)
	}
	client, err := nbd.Connect(lab.NBD("v"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for at := int64(0); at < diskVolume; at += 4 << 20 {
		if err := client.Write(make([]byte, 4096), at); err != nil {
			t.Fatal(err)
		}
	}
	return lab, ctx
}

// TestAFullDiskIsNoErrorToUsers fills a chunk server's disk from outside, under replicas that have not got their space yet.
func TestAFullDiskIsNoErrorToUsers(t *testing.T) {
	disk := t.TempDir()
	mount(t, "-t", "tmpfs", "-o", "size=256m", "tmpfs", disk)
	lab, ctx := diskLab(t, filepath.Join(disk, "cs"))
	ballast := filepath.Join(disk, "ballast")
	if err := os.WriteFile(ballast, bytes.Repeat([]byte{1}, 257<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("%v: the disk is to be full", err)
	}
	if err := scenario.FillVolume(ctx, lab.NBD("v"), diskVolume); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	found, err := scenario.StopIdentical(ctx, lab.Cluster, 4)
	if err != nil {
		t.Fatal(err)
	}
	if found.Layers != diskVolume>>22 {
		t.Errorf("%+v: want the chunks written", found)
	}
}

// brokenDisk mounts a file system on a device that takes the first writes only: its backing file has no room for more, which the file
// system sees as input/output errors, of fsync first of all.
func brokenDisk(t *testing.T, room string) string {
	t.Helper()
	if err := scenario.Need("mkfs.ext4"); err != nil {
		t.Skip(err)
	}
	backing, disk := t.TempDir(), t.TempDir()
	mount(t, "-t", "tmpfs", "-o", "size="+room, "tmpfs", backing)
	image := filepath.Join(backing, "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 1<<30); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mkfs.ext4", "-q", "-F", "-J", "size=4", "-E", "lazy_itable_init=1", image).CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
	mount(t, "-o", "loop", image, disk)
	return disk
}

// TestADiskThatFailsIsNoErrorToUsers has a chunk server's disk fail under its writes and syncs.
func TestADiskThatFailsIsNoErrorToUsers(t *testing.T) {
	lab, ctx := diskLab(t, filepath.Join(brokenDisk(t, "32m"), "cs"))
	if err := scenario.FillVolume(ctx, lab.NBD("v"), diskVolume); err != nil {
		t.Fatal(err)
	}
	state, err := lab.State(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if state.Chunks.Degraded == 0 {
		t.Errorf("%+v: the disk has not failed", state.Chunks)
	}
	lab.CS[0].Kill()
	if _, err := lab.Targets.Stop(); err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for i := 1; i < len(lab.CS); i++ {
		if _, err := lab.CS[i].Stop(); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, lab.CSDir(i))
	}
	if _, err := scenario.Identical(ctx, lab.Binary, dirs, 3); err != nil {
		t.Fatal(err)
	}
}
