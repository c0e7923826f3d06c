package target

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"pstorage/target/nbd"
)

func TestDaemonServesBothProtocols(t *testing.T) {
	c := newCluster("/a")
	socket := filepath.Join(t.TempDir(), "nbd")
	leaveSocket(t, socket)
	d, err := Start(t.Context(), Config{
		Catalog: newVolumes(c, c.open), NBD: []string{"127.0.0.1:0", "unix:" + socket}, ISCSI: []string{"127.0.0.1:0"},
		Registry: prometheus.NewRegistry(),
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(d.NBD()) != 2 || len(d.ISCSI()) != 1 || d.NBD()[1] != "unix:"+socket || strings.HasSuffix(d.NBD()[0], ":0") {
		t.Error(d.NBD(), d.ISCSI())
	}
	for network, address := range map[string]string{"tcp": d.NBD()[0], "unix": socket} {
		conn, err := net.Dial(network, address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		greeting := make([]byte, 8)
		if _, err := io.ReadFull(conn, greeting); err != nil || string(greeting) != "NBDMAGIC" {
			t.Errorf("%q %v", greeting, err)
		}
	}
	iscsi, err := net.Dial("tcp", d.ISCSI()[0])
	if err != nil {
		t.Fatal(err)
	}
	iscsi.Close()
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Error("others can reach the socket", info, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Error(err)
	}
	for _, address := range append(d.ISCSI(), d.NBD()[0]) {
		if _, err := net.Dial("tcp", address); err == nil {
			t.Error("still listening on", address)
		}
	}
}

// leaveSocket leaves a socket behind as a process that was killed does.
func leaveSocket(t *testing.T, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
}

func TestOnlyLoopbackWithoutLeave(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "192.0.2.1:0", "[::]:0"} {
		d, err := Start(t.Context(), Config{ISCSI: []string{address}})
		if !errors.Is(err, ErrInsecure) {
			t.Errorf("%s: %v, %v", address, d, err)
		}
	}
	secure := nbd.TLS{Mode: nbd.TLSRequire, Config: &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}}
	for _, allowed := range []Config{{InsecureNetwork: true}, {NBDTLS: secure}} {
		allowed.NBD = []string{"0.0.0.0:0"}
		d, err := Start(t.Context(), allowed)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
	optional, anonymous := secure, secure
	optional.Mode = nbd.TLSAllow
	anonymous.Config = &tls.Config{MinVersion: tls.VersionTLS12}
	for _, weak := range []Config{{NBDTLS: optional}, {NBDTLS: anonymous}} {
		weak.NBD = []string{"0.0.0.0:0"}
		if d, err := Start(t.Context(), weak); !errors.Is(err, ErrInsecure) {
			t.Errorf("%+v: %v, %v", weak.NBDTLS, err, d)
		}
	}
}

func TestSocketOfAnotherProcessIsNotTakenOver(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "nbd")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := Start(t.Context(), Config{NBD: []string{"unix:" + socket}}); !errors.Is(err, ErrAddressInUse) {
		t.Error(err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("data"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Start(t.Context(), Config{NBD: []string{"unix:" + file}}); err == nil {
		t.Error("listens in place of a file")
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "data" {
		t.Error("file is gone")
	}
}

func TestFailedStartListensNowhere(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "nbd")
	if _, err := Start(t.Context(), Config{NBD: []string{"unix:" + socket}, ISCSI: []string{"nonsense"}}); err == nil {
		t.Fatal("started")
	}
	if _, err := net.Dial("unix", socket); err == nil {
		t.Error("still listening")
	}
}
