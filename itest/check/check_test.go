package check

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"pstorage/blockstore/block"
	"pstorage/itest/nbd"
	server "pstorage/target/nbd"
)

const volumeSize = 8 << 20

// catalog has one volume.
type catalog struct{ device block.Device }

func (c catalog) info() block.VolumeInfo { return block.VolumeInfo{Name: "v", Size: c.device.Size()} }
func (c catalog) List(context.Context) ([]block.VolumeInfo, error) {
	return []block.VolumeInfo{c.info()}, nil
}
func (c catalog) Open(context.Context, string) (block.Device, block.VolumeInfo, error) {
	return c.device, c.info(), nil
}

// forgetful loses every so manieth write: it says it is done and does not do it.
type forgetful struct {
	*block.Memory
	every, count atomic.Int64
}

func (f *forgetful) Close() error { return nil }

func (f *forgetful) Submit(batch []*block.Request) {
	for _, r := range batch {
		if every := f.every.Load(); every > 0 && r.Op == block.Write && f.count.Add(1)%every == 0 {
			r.Err = nil
			r.Done.Complete([]*block.Request{r})
			continue
		}
		f.Memory.Submit([]*block.Request{r})
	}
}

func serve(t *testing.T, device block.Device) *nbd.Client {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := server.New(server.Config{Catalog: catalog{device}})
	go s.Serve(listener)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = s.Shutdown(ctx)
	})
	client, err := nbd.Connect("nbd://" + listener.Addr().String() + "/v")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestHonestDevicePasses(t *testing.T) {
	device := &forgetful{Memory: block.NewMemory(volumeSize)}
	client := serve(t, device)
	v := New(volumeSize, 1)
	if err := v.Run(client, 1000, nil); err != nil {
		t.Fatal(err)
	}
	if err := v.Verify(client); err != nil {
		t.Fatal(err)
	}
	if v.Writes < 100 {
		t.Errorf("only %d writes", v.Writes)
	}
}

func TestLostWriteIsFound(t *testing.T) {
	device := &forgetful{Memory: block.NewMemory(volumeSize)}
	client := serve(t, device)
	v := New(volumeSize, 1)
	if err := v.Run(client, 100, nil); err != nil {
		t.Fatal(err)
	}
	device.every.Store(20)
	err := v.Run(client, 60, nil)
	device.every.Store(0)
	if err == nil {
		err = v.Verify(client)
	}
	if !errors.Is(err, ErrWrong) {
		t.Fatalf("a write was lost, and the checker says %v", err)
	}
}

func TestWhatWasCutOffMayBeOldOrNewButNothingElse(t *testing.T) {
	device := &forgetful{Memory: block.NewMemory(volumeSize)}
	client := serve(t, device)
	v := New(volumeSize, 1)
	sector := func(write uint32) []byte {
		data := make([]byte, Sector)
		fill(data, 5, write)
		return data
	}
	v.now[5], v.next[5] = 3, 4
	for write, allowed := range map[uint32]bool{3: true, 4: true, 2: false, 0: false} {
		if err := v.compare(sector(write), 5); (err == nil) != allowed {
			t.Errorf("write %d: %v", write, err)
		}
	}
	if err := client.Write(sector(4), 5*Sector); err != nil {
		t.Fatal(err)
	}
	if err := v.Verify(client); err != nil {
		t.Fatal(err)
	}
	if err := v.compare(sector(3), 5); err == nil {
		t.Error("after the new content was seen, the old one was taken")
	}
}
