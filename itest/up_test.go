package itest

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"pstorage/itest/check"
	"pstorage/itest/nbd"
	"pstorage/itest/scenario"
)

// mib is 1 MiB.
const mib = 1 << 20

func TestUpPrintsOneLineForEachWayIn(t *testing.T) {
	u := newUp(t)
	if len(u.Ways) != 2 || u.NBD("demo") == "" || !strings.Contains(u.ISCSI("demo"), "/iqn.2014-04.com.pstorage:demo/1") {
		t.Fatalf("printed %q", u.Ways)
	}
	client, err := nbd.Connect(u.NBD("demo"))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if client.Size != 10<<30 {
		t.Errorf("demo has %d bytes", client.Size)
	}
}

func TestUpKeepsVolumesAndDataOverARestart(t *testing.T) {
	u := newUp(t, "--volume", "a=64M", "--volume", "b=32M", "--chunk-size", "1M")
	model := check.New(16*mib, 7)
	client := connect(t, u.NBD("a"))
	if err := model.Run(client, 500, nil); err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
	ways := u.Ways
	took, err := u.Stop()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("ended within %v", took)
	if took > 5*time.Second {
		t.Errorf("SIGTERM took %v, over 5 s", took)
	}
	if err := u.Again(newContext(t)); err != nil {
		t.Fatal(err)
	}
	if len(u.Ways) != len(ways) {
		t.Errorf("volumes before: %q, after: %q", ways, u.Ways)
	}
	client = connect(t, u.NBD("a"))
	defer client.Close()
	if err := model.Verify(client); err != nil {
		t.Fatal(err)
	}
}

func connect(t *testing.T, uri string) *nbd.Client {
	t.Helper()
	client, err := nbd.Connect(uri)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestInterruptEndsUpInOrder(t *testing.T) {
	u := newUp(t, "--volume", "v=16M")
	client := connect(t, u.NBD("v"))
	defer client.Close()
	if err := client.Write(make([]byte, mib), 0); err != nil {
		t.Fatal(err)
	}
	if err := u.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if _, err := u.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestFolderInUseIsRefused(t *testing.T) {
	u := newUp(t, "--volume", "v=16M")
	second := exec.Command(binary, "up", "--data", u.Dir, "--mds", "127.0.0.1:0", "--nbd", "127.0.0.1:0", "--iscsi", "127.0.0.1:0")
	out, err := second.CombinedOutput()
	if err == nil || second.ProcessState.ExitCode() != 5 || !strings.Contains(string(out), "in use by another process") {
		t.Fatalf("exit %d: %s", second.ProcessState.ExitCode(), out)
	}
}

func TestUpServesUnixSocketsToo(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "nbd.sock")
	u := newUp(t, "--volume", "v=16M", "--nbd", "unix:"+socket, "--iscsi", "")
	if len(u.Ways) != 2 || !strings.HasPrefix(u.Ways[0], "nbd://127.0.0.1:") || !strings.HasPrefix(u.Ways[1], "nbd+unix:///v?socket=") {
		t.Fatalf("printed %q", u.Ways)
	}
	client := connect(t, u.Ways[1])
	defer client.Close()
	if err := client.Write(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
}

func TestKilledClusterHasEveryAcknowledgedWrite(t *testing.T) {
	u := newUp(t, "--volume", "v=128M", "--chunk-size", "4M")
	rounds := amount(3, 1)
	if err := scenario.CrashUp(newContext(t), u, "v", rounds, 11, func(line string) { t.Log(line) }); err != nil {
		t.Fatal(err)
	}
}

func TestBytesComeBackThroughEveryClient(t *testing.T) {
	need(t, "nbdcopy", "qemu-img")
	bytes := int64(amount(1024, 64)) * mib
	u := newUp(t, "--volume", "v="+itoa(bytes))
	pass(t, scenario.Copy(newContext(t), u.NBD("v"), u.ISCSI("v"), t.TempDir(), bytes))
}

func TestUpCutOffWhileMakingStartsAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(filepath.Join(dir, "cs1.new", "left"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "mds.new"), 0o700); err != nil {
		t.Fatal(err)
	}
	u := newUpIn(t, dir, "--volume", "v=16M")
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(names, func(e os.DirEntry) bool { return strings.HasSuffix(e.Name(), ".new") }) || u.NBD("v") == "" {
		t.Errorf("folder has %v, printed %q", names, u.Ways)
	}
}
