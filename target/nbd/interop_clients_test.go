package nbd

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"pstorage/blockstore/block"
)

// begin starts a program that stays until the test ends, or until it is ended.
func begin(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return cmd
}

func there(name string) func() bool {
	return func() bool {
		_, err := os.Stat(name)
		return err == nil
	}
}

// TestQemuNbdAsClient: QEMU's block layer, which qemu-nbd serves on to others.
func TestQemuNbdAsClient(t *testing.T) {
	need(t, "qemu-nbd")
	need(t, "nbdcopy")
	const size = 32 << 20
	uri, image, socket := serveVolume(t, size), sparseFile(t, size), filepath.Join(t.TempDir(), "s")
	begin(t, "qemu-nbd", "-t", "-e", "8", "-f", "raw", "--discard=unmap", "-k", socket, uri)
	await(t, "qemu-nbd listens", there(socket))
	back := filepath.Join(t.TempDir(), "back")
	run(t, "nbdcopy", "--flush", image, "nbd+unix:///?socket="+socket)
	run(t, "nbdcopy", "--connections=4", "nbd+unix:///?socket="+socket, back)
	if sum(t, image) != sum(t, back) {
		t.Error("what came back differs")
	}
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri)
}

// unmount works for root; others have a program for it.
func unmount(dir string, flags int) error {
	if err := syscall.Unmount(dir, flags); err != nil {
		return exec.Command("fusermount3", "-u", "-z", dir).Run()
	}
	return nil
}

// TestNbdfuseMakesTheVolumeAFile: a file system's pages, written and read through the kernel.
func TestNbdfuseMakesTheVolumeAFile(t *testing.T) {
	need(t, "nbdfuse")
	if os.Geteuid() != 0 {
		need(t, "fusermount3")
	}
	fuseDevice, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	_ = fuseDevice.Close()
	m := block.NewMemory(8 << 20)
	_, path := start(t, newShelf().add("demo", m, false), Limits{})
	dir := t.TempDir()
	fuse := begin(t, "nbdfuse", dir, "nbd+unix:///demo?socket="+path)
	t.Cleanup(func() { _ = unmount(dir, syscall.MNT_DETACH) })
	name := filepath.Join(dir, "nbd")
	await(t, "nbdfuse is mounted", there(name))
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	data, got := make([]byte, 3<<20), make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(data)
	if _, err := f.WriteAt(data, 1<<20); err != nil {
		t.Error(err)
	}
	if err := f.Sync(); err != nil {
		t.Error(err)
	}
	if _, err := f.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, data) {
		t.Errorf("what came back differs, %v", err)
	}
	if info, err := f.Stat(); err != nil || info.Size() != 8<<20 {
		t.Errorf("the file: %v, %v", info, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if err := unmount(dir, 0); err != nil {
		t.Fatal(err)
	}
	if err := fuse.Wait(); err != nil {
		t.Error("nbdfuse:", err)
	}
	stored := &block.Request{Op: block.Read, Offset: 1 << 20, Length: int64(len(got)), Data: got}
	clear(got)
	if submit(t, m, stored); !bytes.Equal(got, data) {
		t.Error("what was synced is not on the volume")
	}
}

// TestNbdkitSharesConnections: nbdkit's nbd plugin with one connection for many clients, and with one for each.
func TestNbdkitSharesConnections(t *testing.T) {
	need(t, "nbdkit")
	need(t, "nbdcopy")
	const size = 16 << 20
	for _, shared := range []string{"shared=true", "shared=false"} {
		uri, image, back := serveVolume(t, size), sparseFile(t, size), filepath.Join(t.TempDir(), "back")
		run(t, "nbdkit", "-U", "-", "nbd", "uri="+uri, shared,
			"--run", `nbdcopy --flush --connections=4 `+image+` "$uri" && nbdcopy --connections=4 "$uri" `+back+` && nbdinfo --map "$uri"`)
		if sum(t, image) != sum(t, back) {
			t.Error(shared, "what came back differs")
		}
	}
}

// TestClientsThatAreKilled: those of others, in the middle of copying; the volume is given up and the server lives on.
func TestClientsThatAreKilled(t *testing.T) {
	need(t, "nbdcopy")
	need(t, "qemu-img")
	s := newShelf().add("demo", block.NewMemory(64<<20), false)
	server, path := start(t, s, Limits{})
	uri, image := "nbd+unix:///demo?socket="+path, sparseFile(t, 64<<20)
	for range 5 {
		for _, args := range [][]string{{"nbdcopy", image, uri}, {"qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, uri}} {
			client := begin(t, args[0], args[1:]...)
			await(t, "the client is connected, or done", func() bool {
				server.mu.Lock()
				defer server.mu.Unlock()
				return len(server.conns) > 0 || len(s.closed) > 0
			})
			_ = client.Process.Signal(syscall.SIGKILL)
			_ = client.Wait()
			await(t, "its connections have ended", func() bool {
				server.mu.Lock()
				defer server.mu.Unlock()
				return server.open == 0
			})
			for len(s.closed) > 0 {
				<-s.closed
			}
		}
	}
	connect(t, path, "demo", false).alive512()
}
