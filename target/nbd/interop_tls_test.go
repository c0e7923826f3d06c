package nbd

import (
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pstorage/blockstore/block"
)

// serveTLS serves an empty volume "demo", encrypted only, at a TCP address; the folder has a client's certificates.
func serveTLS(t *testing.T, size int64) (address, dir string) {
	t.Helper()
	dir = newAuthority(t).write()
	config, err := Certificates(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := newShelf().add("demo", block.NewMemory(size), false)
	serveUntilEnd(t, New(Config{Catalog: s, TLS: TLS{Mode: TLSRequire, Config: config}}), l)
	return l.Addr().String(), dir
}

func TestNbdcopyEncrypted(t *testing.T) {
	need(t, "nbdcopy")
	need(t, "nbdinfo")
	const size = 32 << 20
	address, dir := serveTLS(t, size)
	uri := "nbds://" + address + "/demo?tls-certificates=" + dir
	if out := run(t, "nbdinfo", uri); !strings.Contains(out, "with TLS") {
		t.Error(out)
	}
	image, back := sparseFile(t, size), filepath.Join(t.TempDir(), "back")
	run(t, "nbdcopy", "--flush", image, uri)
	run(t, "nbdcopy", uri, back)
	if sum(t, image) != sum(t, back) {
		t.Error("what came back differs")
	}
	if out, err := exec.Command("nbdinfo", "nbd://"+address+"/demo").CombinedOutput(); err == nil {
		t.Errorf("without TLS: %s", out)
	}
}

func TestQemuEncrypted(t *testing.T) {
	need(t, "qemu-img")
	need(t, "qemu-io")
	const size = 32 << 20
	address, dir := serveTLS(t, size)
	host, port, _ := net.SplitHostPort(address)
	credentials := "tls-creds-x509,id=tls0,endpoint=client,dir=" + dir
	image := sparseFile(t, size)
	volume := "driver=raw,file.driver=nbd,file.host=" + host + ",file.port=" + port + ",file.export=demo,file.tls-creds=tls0"
	run(t, "qemu-img", "convert", "-n", "--object", credentials, "-f", "raw", "--target-image-opts", image, volume)
	run(t, "qemu-img", "compare", "--object", credentials, "--image-opts", "driver=raw,file.driver=file,file.filename="+image, volume)
	out := run(t, "qemu-io", "--object", credentials, "--image-opts", volume, "-c", "write -P 5 1M 3M", "-c", "read -P 5 1M 3M", "-c", "flush")
	if strings.Contains(out, "fail") || strings.Contains(out, "rror") {
		t.Error(out)
	}
}

// TestNbdkitAsClient: nbdkit's nbd plugin, which libnbd drives through many requests at a time.
func TestNbdkitAsClient(t *testing.T) {
	need(t, "nbdkit")
	need(t, "nbdcopy")
	const size = 32 << 20
	address, dir := serveTLS(t, size)
	host, port, _ := net.SplitHostPort(address)
	image, back := sparseFile(t, size), filepath.Join(t.TempDir(), "back")
	run(t, "nbdkit", "-U", "-", "nbd", "hostname="+host, "port="+port, "export=demo", "tls=require", "tls-certificates="+dir,
		"--run", `nbdcopy --flush `+image+` "$uri" && nbdcopy "$uri" `+back)
	if sum(t, image) != sum(t, back) {
		t.Error("what came back differs")
	}
}
