package cs

import (
	"bytes"
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
	"pstorage/cs/store"
	"pstorage/cs/wire"
)

// oneConn is a listener of one connection.
type oneConn chan net.Conn

func (l oneConn) Accept() (net.Conn, error) {
	if c, ok := <-l; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}

func (l oneConn) Close() error   { close(l); return nil }
func (l oneConn) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

// lone is a store on a disk in memory, and a client of it that flushes each of its writes before the next.
type lone struct {
	disk   *disk.Mem
	store  *store.Store
	server *wire.Server
	conn   *wire.Conn
}

// asLone runs a test, under virtual time, on a store without a write journal and on one with it.
func asLone(t *testing.T, test func(t *testing.T, l *lone)) {
	for name, journal := range map[string]int64{"files": 0, "journal": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLone(t, journal)
				test(t, l)
				l.conn.Close(nil)
				l.server.Close()
				_ = l.store.Close()
			})
		})
	}
}

func newLone(t *testing.T, journal int64) *lone {
	l := &lone{disk: disk.NewMem(1)}
	err := store.Create(l.disk, "cs")
	if err == nil && journal > 0 {
		err = store.AddJournal(l.disk, "cs", "ssd", journal)
	}
	if err == nil {
		l.store, err = store.Open(l.disk, "cs", store.Options{})
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(l.store.Prepare([]store.Preparation{{ID: testChunk, Blocks: testBlocks, Layers: []uint32{1, 2}, Epoch: testEpoch, Version: 1, State: store.InSync}})...); err != nil {
		t.Fatal(err)
	}
	l.server = wire.NewServer(wire.ServerConfig{Engine: l.store})
	l.server.Admit(true)
	listener := make(oneConn)
	go l.server.Serve(listener)
	client, served := net.Pipe()
	listener <- served
	if l.conn, err = wire.Open(context.Background(), client, "memory", wire.Hello{}); err != nil {
		t.Fatal(err)
	}
	for i := range uint32(testBlocks) {
		l.write(t, i)
		l.flush(t, wire.OK)
	}
	return l
}

func (l *lone) write(t *testing.T, block uint32) {
	t.Helper()
	wantStatus(t, do(l.conn, writeCall(testChunk, 1, block, byte(block))), wire.OK)
}

func (l *lone) flush(t *testing.T, want wire.Status) {
	t.Helper()
	wantStatus(t, do(l.conn, &wire.Call{Op: wire.OpFlush, Chunk: testChunk, Epoch: testEpoch}), want)
}

func TestWhatASyncAheadHasLostTheFlushIsTold(t *testing.T) {
	asLone(t, func(t *testing.T, l *lone) {
		failed := 0
		l.disk.Fails(func(s disk.Step) error {
			if s.Op == disk.OpSync {
				failed++
				return disk.ErrIO
			}
			return nil
		})
		before := l.server.Stats().Ahead.Load()
		l.write(t, 0)
		synctest.Wait()
		if failed != 1 || l.server.Stats().Ahead.Load() != before+1 {
			t.Fatalf("%d failed syncs, %d begun ahead: not what this is about", failed, l.server.Stats().Ahead.Load()-before)
		}
		l.disk.Fails(nil) // the kernel says that all is well now
		l.flush(t, wire.IOError)
		l.flush(t, wire.IOError)
	})
}

func TestAFlushBegunAheadHoldsThroughAPowerCut(t *testing.T) {
	asLone(t, func(t *testing.T, l *lone) {
		if l.server.Stats().Ahead.Load() == 0 {
			t.Fatal("no sync was begun ahead")
		}
		l.disk.Forgets(true)
		l.disk.Restart(true)
		s, err := store.Open(l.disk, "cs", store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		for i := range uint32(testBlocks) {
			codes := make([]uint32, 1)
			got, err := s.Read(testChunk, store.Access{Epoch: testEpoch, Version: 1, Layer: 2, Suspect: true}, i*chunk.BlockSize, chunk.BlockSize, codes, nil, false)
			if err != nil || !bytes.Equal(got, writeCall(testChunk, 1, i, byte(i)).Data) {
				t.Fatalf("block %d, flushed, is not there: %v", i, err)
			}
		}
	})
}
