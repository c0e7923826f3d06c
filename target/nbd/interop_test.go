package nbd

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pstorage/blockstore/block"
)

// need skips the test when a tool is not installed.
func need(t *testing.T, tool string) {
	t.Helper()
	if _, err := exec.LookPath(tool); err != nil {
		t.Skipf("%s is not installed", tool)
	}
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// serveVolume serves an empty volume "demo" and returns its URI.
func serveVolume(t *testing.T, size int64) string {
	_, path := start(t, newShelf().add("demo", block.NewMemory(size), false), Limits{})
	return "nbd+unix:///demo?socket=" + path
}

// sparseFile writes a file with data, zeros and a hole.
func sparseFile(t *testing.T, size int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data := make([]byte, size/4)
	var seed [32]byte
	_, _ = rand.NewChaCha8(seed).Read(data)
	for _, at := range []int64{0, size / 2} {
		if _, err := f.WriteAt(data, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return name
}

func sum(t *testing.T, name string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

func TestNbdinfoSeesTheVolume(t *testing.T) {
	need(t, "nbdinfo")
	uri := serveVolume(t, 8<<20)
	var info struct {
		Protocol   string
		Structured bool
		Exports    []map[string]any
	}
	if err := json.Unmarshal([]byte(run(t, "nbdinfo", "--json", uri)), &info); err != nil {
		t.Fatal(err)
	}
	e := info.Exports[0]
	for key, want := range map[string]any{
		"export-name": "demo", "export-size": 8.0 * (1 << 20), "is_read_only": false, "can_fua": true, "can_flush": true,
		"can_multi_conn": true, "can_trim": true, "can_zero": true, "can_df": true, "can_fast_zero": true, "can_cache": true,
		"block_size_minimum": 512.0, "block_size_preferred": 4096.0, "block_size_maximum": 33554432.0,
	} {
		if e[key] != want {
			t.Errorf("%s is %v, want %v", key, e[key], want)
		}
	}
	if info.Protocol != "newstyle-fixed" || !info.Structured {
		t.Error(info)
	}
	if out := run(t, "nbdinfo", "--list", strings.Replace(uri, "/demo", "/", 1)); !strings.Contains(out, `export="demo"`) {
		t.Error(out)
	}
	if out := run(t, "nbdinfo", "--map", uri); !strings.Contains(out, "hole,zero") {
		t.Error(out)
	}
}

func TestNbdcopyInAndOut(t *testing.T) {
	need(t, "nbdcopy")
	const size = 64 << 20
	uri, image := serveVolume(t, size), sparseFile(t, size)
	back := filepath.Join(t.TempDir(), "back")
	run(t, "nbdcopy", "--flush", image, uri)
	run(t, "nbdcopy", uri, back)
	if sum(t, image) != sum(t, back) {
		t.Error("what came back differs")
	}
}

func TestQemuImgConvertsAndCompares(t *testing.T) {
	need(t, "qemu-img")
	const size = 32 << 20
	uri, image := serveVolume(t, size), sparseFile(t, size)
	run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, uri)
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri)
	var extents []struct {
		Start, Length int64
		Data, Zero    bool
	}
	out := run(t, "qemu-img", "map", "--output=json", "-f", "raw", uri)
	if err := json.Unmarshal([]byte(out), &extents); err != nil || len(extents) != 4 || extents[1].Data || !extents[1].Zero {
		t.Errorf("map: %v %s", err, out)
	}
}

func TestQemuIoReadsWritesAndDiscards(t *testing.T) {
	need(t, "qemu-io")
	uri := serveVolume(t, 8<<20)
	out := run(t, "qemu-io", "-f", "raw", uri, "-c", "write -P 17 -f 512 1M", "-c", "write -z 64k 64k", "-c", "write -z -u 256k 64k",
		"-c", "discard 512k 64k", "-c", "read -P 17 512 65024", "-c", "read -P 0 64k 64k", "-c", "read -P 0 256k 64k",
		"-c", "read -P 0 512k 64k", "-c", "read -P 17 1M 512", "-c", "read -P 0 1049088 4M", "-c", "flush", "-c", "write -P 3 100 1000", "-c", "read -P 3 100 1000")
	if strings.Contains(out, "fail") || strings.Contains(out, "rror") {
		t.Error(out)
	}
}

const python = "/usr/bin/python3" // the system's, which has the system's modules

func TestLibnbdScript(t *testing.T) {
	need(t, python)
	if out, err := exec.Command(python, "-c", "import nbd").CombinedOutput(); err != nil {
		if bytes.Contains(out, []byte("ModuleNotFoundError")) {
			t.Skip("python3-libnbd is not installed")
		}
		t.Fatalf("import nbd: %v\n%s", err, out)
	}
	run(t, python, "testdata/libnbd.py", serveVolume(t, 64<<20))
}

func TestFioVerifies(t *testing.T) {
	need(t, "fio")
	uri := serveVolume(t, 64<<20)
	dir := t.TempDir()
	cmd := exec.Command("fio", "--name=verify", "--ioengine=nbd", "--uri="+uri, "--rw=randrw", "--bsrange=512-1M", "--bs_unaligned=0",
		"--size=64M", "--verify=crc32c", "--iodepth=16", "--randseed=7", "--fsync=64")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || bytes.Contains(out, []byte("verify:")) && bytes.Contains(out, []byte("bad")) {
		t.Fatalf("%v\n%s", err, out)
	}
}
