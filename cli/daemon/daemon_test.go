package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func TestFolderIsServedByOneProcessAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, err := TakeLock(path)
	if err != nil {
		t.Fatal(err)
	}
	_, err = TakeLock(path)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Fatalf("second lock: %v; want ErrInUse with the owner's number", err)
	}
	if owner := Owner(path); owner != os.Getpid() {
		t.Errorf("owner is %d, want %d", owner, os.Getpid())
	}
	first.Release()
	if owner := Owner(path); owner != 0 {
		t.Errorf("owner after release is %d", owner)
	}
	second, err := TakeLock(path)
	if err != nil {
		t.Fatalf("lock after release: %v", err)
	}
	second.Release()
}

func TestOnlyLoopbackIsListenedOnUnlessInsecureIsAsked(t *testing.T) {
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0", "192.0.2.1:1", "example.org:80"} {
		if err := CheckAddress(address, false); !errors.Is(err, ErrNotLoopback) {
			t.Errorf("%s: %v, want ErrNotLoopback", address, err)
		}
		if err := CheckAddress(address, true); err != nil {
			t.Errorf("%s with --insecure-network: %v", address, err)
		}
	}
	for _, address := range []string{"127.0.0.1:0", "127.3.2.1:80", "[::1]:0", "localhost:0"} {
		if err := CheckAddress(address, false); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	if err := CheckAddress("127.0.0.1", true); err == nil {
		t.Error("an address without a port was taken")
	}
}

func TestTakenAddressSaysWhatToDo(t *testing.T) {
	listener, err := Listen("127.0.0.1:0", false)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if _, err := Listen(listener.Addr().String(), false); err == nil || !strings.Contains(err.Error(), "port 0") {
		t.Errorf("second listener: %v", err)
	}
}

func TestDeadSocketIsReplacedAndALivingOneIsNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	living, err := Listen("unix:"+path, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("unix:"+path, false); !errors.Is(err, ErrInUse) {
		t.Fatalf("living socket: %v, want ErrInUse", err)
	}
	living.(*net.UnixListener).SetUnlinkOnClose(false)
	living.Close()
	again, err := Listen("unix:"+path, false)
	if err != nil {
		t.Fatalf("dead socket: %v", err)
	}
	again.Close()
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("unix:"+path, false); err == nil {
		t.Fatal("a plain file was replaced")
	}
}

func TestMetricsPageShowsTheRegistry(t *testing.T) {
	registry := NewRegistry()
	registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "pstorage_test_total", Help: "A test's."}, func() float64 { return 7 }))
	metrics, err := ServeMetrics("127.0.0.1:0", false, registry, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer metrics.Close()
	for path, want := range map[string]string{"/metrics": "pstorage_test_total 7", "/debug/pprof/": "goroutine"} {
		reply, err := http.Get("http://" + metrics.Addr() + path)
		if err != nil {
			t.Fatal(err)
		}
		page, _ := io.ReadAll(reply.Body)
		reply.Body.Close()
		if !strings.Contains(string(page), want) {
			t.Errorf("%s does not have %q", path, want)
		}
	}
}

func TestServiceManagerIsToldWhereItAsked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	if err := Notify(path, Ready); err != nil {
		t.Fatal(err)
	}
	var got [64]byte
	if n, _ := socket.Read(got[:]); string(got[:n]) != "READY=1" {
		t.Errorf("told %q", got[:n])
	}
	if err := Notify("", Ready); err != nil {
		t.Errorf("nobody asked: %v", err)
	}
	if err := Notify("tcp:1", Ready); err == nil {
		t.Error("a strange NOTIFY_SOCKET was taken")
	}
}

func TestSignalEndsTheContext(t *testing.T) {
	ctx, stop := UntilSignal(context.Background())
	defer stop()
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := self.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
}

func TestUnknownLogLevelIsRefused(t *testing.T) {
	if _, err := Logger(io.Discard, "loud"); err == nil {
		t.Error("level loud was taken")
	}
}
