package attach

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"pstorage/blockstore/block"
	"pstorage/target/nbd"
)

const patience = 20 * time.Second

// fakeKernel keeps sockets as the kernel does, and shows its devices in a folder like sysfs.
type fakeKernel struct {
	t       *testing.T
	sysfs   string
	mu      sync.Mutex
	devices map[uint32]*fakeDevice
	watch   []chan uint32
	refuse  error // of Connect
}

type fakeDevice struct {
	Device
	sockets []int // -1: dead
}

func newFakeKernel(t *testing.T) *fakeKernel {
	k := &fakeKernel{t: t, sysfs: t.TempDir(), devices: map[uint32]*fakeDevice{}}
	t.Cleanup(func() {
		for index := range k.devices {
			k.drop(index)
		}
	})
	return k
}

func (k *fakeKernel) show(index uint32, d *fakeDevice) {
	dir := filepath.Join(k.sysfs, fmt.Sprintf("nbd%d", index))
	os.MkdirAll(dir, 0o755)
	ro := "0\n"
	if d.Export.ReadOnly() {
		ro = "1\n"
	}
	for name, text := range map[string]string{"backend": d.Backend + "\n", "size": fmt.Sprintf("%d\n", d.Export.Size/512), "ro": ro} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			k.t.Error(err)
		}
	}
}

func hold(fd int) int {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	return own
}

func (k *fakeKernel) Connect(d Device, sockets []int) (uint32, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.refuse != nil {
		return 0, k.refuse
	}
	index := uint32(len(k.devices))
	f := &fakeDevice{Device: d}
	for _, fd := range sockets {
		f.sockets = append(f.sockets, hold(fd))
	}
	k.devices[index] = f
	k.show(index, f)
	return index, nil
}

func (k *fakeKernel) Reconfigure(index uint32, d Device, socket int) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.devices[index]
	if f == nil || f.Backend != d.Backend {
		return ErrGone
	}
	k.notice(f)
	for i, fd := range f.sockets {
		if fd < 0 {
			f.sockets[i] = hold(socket)
			f.Device = d
			k.show(index, f)
			return nil
		}
	}
	return ErrAlive
}

// notice shuts sockets whose server has ended.
func (k *fakeKernel) notice(f *fakeDevice) {
	for i, fd := range f.sockets {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		if _, err := unix.Poll(p, 0); fd >= 0 && err == nil && p[0].Revents != 0 {
			k.shut(f, i)
		}
	}
}

func (k *fakeKernel) shut(f *fakeDevice, i int) {
	unix.Shutdown(f.sockets[i], unix.SHUT_RDWR)
	unix.Close(f.sockets[i])
	f.sockets[i] = -1
}

// lose ends a connection and tells whoever watches.
func (k *fakeKernel) lose(index uint32, i int) {
	k.mu.Lock()
	k.shut(k.devices[index], i)
	watch := k.watch
	k.mu.Unlock()
	for _, w := range watch {
		select {
		case w <- index:
		default:
		}
	}
}

// alive counts connections.
func (k *fakeKernel) alive(index uint32) (n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.devices[index]
	if f == nil {
		return 0
	}
	k.notice(f)
	for _, fd := range f.sockets {
		if fd >= 0 {
			n++
		}
	}
	return n
}

func (k *fakeKernel) drop(index uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.devices[index]
	for i, fd := range f.sockets {
		if fd >= 0 {
			k.shut(f, i)
		}
	}
	delete(k.devices, index)
	os.RemoveAll(filepath.Join(k.sysfs, fmt.Sprintf("nbd%d", index)))
}

func (k *fakeKernel) Disconnect(index uint32) error {
	k.drop(index)
	return nil
}

func (k *fakeKernel) Connected(index uint32) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.devices[index] != nil, nil
}

func (k *fakeKernel) Dead(ctx context.Context) (<-chan uint32, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	w := make(chan uint32, 16)
	k.watch = append(k.watch, w)
	return w, nil
}

// bench is a host, with a server that can be killed and started again.
type bench struct {
	*Host
	t      *testing.T
	kernel *fakeKernel
	path   string // of the server's socket
	server *nbd.Server
	device block.Device
}

func newBench(t *testing.T) *bench {
	k := newFakeKernel(t)
	dir := t.TempDir()
	b := &bench{t: t, kernel: k, path: filepath.Join(dir, "nbd.sock"), device: block.NewMemory(1 << 20)}
	b.Host = &Host{Kernel: k, Sysfs: k.sysfs, Dev: filepath.Join(dir, "dev"), Folder: filepath.Join(dir, "run"), Links: filepath.Join(dir, "links")}
	if err := os.Mkdir(b.Dev, 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if err := os.WriteFile(b.devicePath(uint32(i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b.serve()
	t.Cleanup(func() { b.kill() })
	return b
}

type oneVolume struct{ device block.Device }

func (o oneVolume) List(context.Context) ([]block.VolumeInfo, error) {
	return []block.VolumeInfo{{Name: "v", Size: o.device.Size()}}, nil
}

func (o oneVolume) Open(_ context.Context, name string) (block.Device, block.VolumeInfo, error) {
	if name != "v" {
		return nil, block.VolumeInfo{}, block.ErrNotFound
	}
	return undying{o.device}, block.VolumeInfo{Name: "v", Size: o.device.Size()}, nil
}

type undying struct{ block.Device }

func (undying) Close() error { return nil }

func (b *bench) serve() {
	b.t.Helper()
	l, err := net.Listen("unix", b.path)
	if err != nil {
		b.t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // kill does, before there is another
	b.server = nbd.New(nbd.Config{Catalog: oneVolume{b.device}})
	go b.server.Serve(l)
}

func (b *bench) kill() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b.server.Shutdown(ctx)
	os.Remove(b.path)
	b.until("no connection left", func() bool { return b.kernel.alive(0) == 0 })
}

// mapped is a keeper at work.
type mapped struct {
	Record
	end  context.CancelFunc
	done chan error
}

func (b *bench) start(connections int) *mapped {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	m := &mapped{end: cancel, done: make(chan error, 1)}
	ready := make(chan Record, 1)
	go func() {
		m.done <- b.Map(ctx, Mapping{Volume: "v", Servers: []string{"unix:" + b.path}, Connections: connections, Patience: time.Minute, Log: testLog(b.t)},
			func(r Record) { ready <- r })
	}()
	select {
	case m.Record = <-ready:
	case err := <-m.done:
		cancel()
		b.t.Fatal("not mapped: ", err)
	}
	b.t.Cleanup(func() {
		cancel()
		select {
		case err := <-m.done:
			if err != nil {
				b.t.Error(err)
			}
		case <-time.After(patience):
			b.t.Error("the keeper does not end")
		}
	})
	return m
}

// until waits for something that is certain to happen.
func (b *bench) until(what string, holds func() bool) {
	b.t.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			b.t.Fatal("never: ", what)
		}
	}
}

// lose0 tells that a connection of device 0 has ended.
func (k *fakeKernel) lose0() {
	k.alive(0)
	for _, w := range k.watch {
		select {
		case w <- 0:
		default:
		}
	}
}
