package wire

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync/atomic"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
)

func TestWhatIsWrittenIsReadBack(t *testing.T) {
	for _, network := range []string{"tcp", "unix", "plain"} {
		t.Run(network, func(t *testing.T) {
			f := newFixtureOn(t, network, nil)
			c := f.dial(Hello{Session: 1, Server: 1025})
			disk := make([]byte, testBlocks*chunk.BlockSize)
			r := rand.New(rand.NewPCG(1, 2))
			for i := range 300 {
				off, n := uint32(r.IntN(len(disk)/512))*512, 512*(1+r.IntN(64))
				if i%20 == 0 {
					n = 512 * (1 + r.IntN(MaxData/512))
				}
				n = min(n, len(disk)-int(off), MaxData)
				switch r.IntN(4) {
				case 0:
					must(t, c, newCall(OpZero, off, uint32(n)))
					clear(disk[off:][:n])
				case 1, 2:
					data := random(uint64(i), n)
					must(t, c, writeCall(off, data))
					copy(disk[off:], data)
				default:
					first, last := off/4096*4096, (off+uint32(n)+4095)/4096*4096
					last = min(last, first+MaxData)
					got := must(t, c, newCall(OpRead, first, last-first))
					if !bytes.Equal(got.Dst, disk[first:last]) {
						t.Fatalf("read of %d at %d differs", last-first, first)
					}
				}
			}
			for off := uint32(0); off < uint32(len(disk)); off += MaxData {
				if got := must(t, c, newCall(OpRead, off, MaxData)); !bytes.Equal(got.Dst, disk[off:][:MaxData]) {
					t.Fatalf("disk differs from %d on", off)
				}
			}
		})
	}
}

func TestAbsentAndZeroBlocksTravelWithoutData(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial(Hello{})
	data := random(1, 64*4096)
	must(t, c, writeCall(64*4096, data))
	must(t, c, newCall(OpZero, 70*4096, 10*4096))
	clear(data[6*4096:][:10*4096])
	got := must(t, c, newCall(OpRead, 0, 256*4096))
	want := make([]byte, 256*4096)
	copy(want[64*4096:], data)
	if !bytes.Equal(got.Dst, want) {
		t.Fatal("read differs")
	}
	if got.Codes[0] != chunk.Absent || got.Codes[70] != chunk.Zeros || !chunk.HasData(got.Codes[64]) {
		t.Fatalf("codes %v, %v, %v", got.Codes[0], got.Codes[70], got.Codes[64])
	}
}

func TestManyCallsOfSeveralCompletersComeBackOnceEach(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial(Hello{})
	boxes := []collector{make(collector, 1000), make(collector, 1000), make(collector, 1000)}
	var calls []*Call
	for i := range 600 {
		call := newCall(OpPing, 0, 0)
		if i%3 == 0 {
			call = newCall(OpRead, uint32(i%testBlocks)*4096, 4096)
		}
		if i%7 == 0 {
			call = newCall(OpTable, 0, 4096*testBlocks)
			call.Flags = 0
		}
		call.Done, call.Owner = boxes[i%len(boxes)], i
		calls = append(calls, call)
	}
	c.Send(calls)
	seen := make(map[int]bool)
	for i := range calls {
		call := <-boxes[i%len(boxes)]
		n := call.Owner.(int)
		if call.Err != nil || call.Status != OK || seen[n] || n%len(boxes) != i%len(boxes) {
			t.Fatalf("call %d: %v %v, seen %v", n, call.Status, call.Err, seen[n])
		}
		seen[n] = true
	}
	if c.Oldest() != 0 {
		t.Errorf("nothing is outstanding, but for %v", c.Oldest())
	}
}

func TestEngineErrorsArriveAsStatuses(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial(Hello{})
	stale := newCall(OpRead, 0, 4096)
	stale.Epoch = 2
	old := newCall(OpRead, 0, 4096)
	old.Version = 4
	none := newCall(OpRead, 0, 4096)
	none.Chunk.Index++
	sum := writeCall(0, random(1, 4096))
	sum.Sums[0]++
	beyond := writeCall(testBlocks*4096, random(1, 4096))
	noEpoch := newCall(OpFence, 0, 0)
	noEpoch.Epoch = 0
	peers := newCall(OpReadLayer, 0, 4096)
	garbled := newCall(OpRaise, 0, 0)
	garbled.Body = []byte("not a list")
	for _, test := range []struct {
		call   *Call
		status Status
		aux0   uint64
	}{{stale, StaleEpoch, 3}, {old, StaleVersion, 5}, {none, NoChunk, 0}, {sum, BadSum, 0}, {beyond, BadRequest, 0},
		{noEpoch, BadRequest, 0}, {peers, BadRequest, 0}, {garbled, BadRequest, 0}, {newCall(Op(77), 0, 0), BadRequest, 0}} {
		do(c, test.call)
		if test.call.Err != nil || test.call.Status != test.status || test.call.Aux0 != test.aux0 {
			t.Errorf("%v: %v %d %v, want %v %d", test.call.Op, test.call.Status, test.call.Aux0, test.call.Err, test.status, test.aux0)
		}
	}
}

func TestCallsThatDoNotFitTheProtocolAreNotSent(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial(Hello{})
	short := newCall(OpRead, 0, 8192)
	short.Dst = short.Dst[:4096]
	sums := writeCall(100, random(1, 4096))
	sums.Sums = sums.Sums[:1]
	long := writeCall(0, make([]byte, MaxData+4096))
	both := writeCall(0, random(1, 4096))
	both.Body = []byte{1}
	for _, call := range []*Call{short, sums, long, both, newCall(OpRead, 1, 4096), newCall(OpTable, 0, 4096*(MaxSums+1))} {
		if do(c, call); call.Status != BadRequest || call.Err != nil {
			t.Errorf("%v: %v %v", call.Op, call.Status, call.Err)
		}
	}
	must(t, c, newCall(OpPing, 0, 0))
}

func TestFenceListsOpenChunksInPieces(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial(Hello{})
	var want []store.ChunkVersion
	for i := range uint32(5) {
		id := chunk.ID{File: testChunk.File, Index: 10 * i}
		f.prepare(store.Preparation{ID: id, Blocks: 1, Layers: []uint32{2}, Epoch: 3, Version: 1 + uint64(i), State: store.InSync})
		w := &Call{Op: OpZero, Chunk: id, Layer: 2, Epoch: 3, Version: 1 + uint64(i), Length: 4096}
		must(t, c, w)
		want = append(want, store.ChunkVersion{Index: 10 * i, Version: 1 + uint64(i)})
	}
	fence := newCall(OpFence, 0, 0)
	fence.Epoch = 4
	for from, rest := range map[uint32][]store.ChunkVersion{0: want, 11: want[2:], 41: {}} {
		fence.Offset = from
		got, err := DecodeChunkVersions(must(t, c, fence).Reply)
		if err != nil || !slices.Equal(got, rest) || fence.Aux0 != 0 {
			t.Errorf("from %d: %v %v, %d more", from, got, err, fence.Aux0)
		}
	}
	settle := newCall(OpSettle, 0, 0)
	settle.Epoch, settle.Body = 4, AppendChunkVersions(nil, want[:4])
	must(t, c, settle)
	fence.Offset = 0
	if got, err := DecodeChunkVersions(must(t, c, fence).Reply); err != nil || !slices.Equal(got, want[4:]) {
		t.Errorf("after settling: %v %v", got, err)
	}
}

func TestPeersReadSingleLayersAndWriteNothing(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial(Hello{})
	data := random(3, 4096)
	must(t, c, writeCall(4096, data))
	p := f.dial(Hello{Peer: true})
	for layer, want := range map[uint32][]byte{1: make([]byte, 4096), 2: data} {
		call := newCall(OpReadLayer, 4096, 4096)
		call.Flags, call.Layer, call.Epoch = FlagPeer, layer, 0
		if must(t, p, call); !bytes.Equal(call.Dst, want) {
			t.Errorf("layer %d differs", layer)
		}
		table := newCall(OpTableLayer, 4096, 4096)
		table.Flags, table.Layer, table.Epoch = FlagPeer, layer, 0
		if must(t, p, table); chunk.HasData(table.Codes[0]) != (layer == 2) {
			t.Errorf("layer %d has code %d", layer, table.Codes[0])
		}
	}
	write := writeCall(0, data)
	write.Flags = FlagPeer
	if do(p, write); write.Status != BadRequest {
		t.Errorf("a peer's write: %v", write.Status)
	}
}

func TestPeersAreToldThatClientsAreBusy(t *testing.T) {
	var busy atomic.Bool
	f := newFixture(t, func(c *ServerConfig) { c.Busy = busy.Load })
	must(t, f.dial(Hello{}), writeCall(4096, random(3, 4096)))
	p := f.dial(Hello{Peer: true})
	for _, want := range []uint64{0, Busy} {
		busy.Store(want == Busy)
		call := newCall(OpReadLayer, 4096, 4096)
		call.Flags, call.Epoch = FlagPeer, 0
		if must(t, p, call); call.Aux0 != want {
			t.Errorf("the peer is told %d, want %d", call.Aux0, want)
		}
	}
}

func TestStoredDataThatDoNotVerifyAreReported(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial(Hello{})
	must(t, c, writeCall(0, random(1, 200*4096)))
	f.engine.Damage(testChunk, 2, 150, store.Sound)
	for _, length := range []uint32{200 * 4096, 151 * 4096} {
		if got := newCall(OpRead, 0, length); true {
			do(c, got)
			if got.Status != Corrupt || got.Aux0 != 150 || got.Err != nil {
				t.Errorf("%d bytes: %v %d %v", length, got.Status, got.Aux0, got.Err)
			}
		}
	}
}

// peerConn is a server's side that the test plays itself.
func playedServer(t *testing.T) (c *Conn, server net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	accepted := make(chan net.Conn, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			close(accepted)
			return
		}
		var b [RequestSize + helloSize]byte
		var r [ReplySize]byte
		(&reply{op: OpHello}).put(r[:])
		if _, err := io.ReadFull(nc, b[:]); err == nil {
			_, _ = nc.Write(r[:])
		}
		accepted <- nc
	}()
	c, err = Dial(context.Background(), l.Addr().String(), Hello{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(nil) })
	server = <-accepted
	t.Cleanup(func() { server.Close() })
	return c, server
}

func TestAFailedConnectionCompletesEachCallOnce(t *testing.T) {
	c, server := playedServer(t)
	failsOnce(t, c, server)
}

func TestAFailedConnectionWithoutADescriptorCompletesEachCallOnce(t *testing.T) {
	near, server := net.Pipe()
	c, err := newConn(near, "pipe")
	if err != nil {
		t.Fatal(err)
	}
	failsOnce(t, c, server)
}

// failsOnce ends the server's side of a connection while calls are being sent.
func failsOnce(t *testing.T, c *Conn, server net.Conn) {
	back := make(collector, 100)
	var calls []*Call
	for range 10 {
		call := writeCall(0, random(1, MaxData)) // more than the socket takes
		call.Done = back
		calls = append(calls, call)
	}
	c.Send(calls)
	server.Close()
	for range calls {
		if call := <-back; !errors.Is(call.Err, ErrConn) {
			t.Fatalf("call came back with %v", call.Err)
		}
	}
	<-c.Closed()
	late := writeCall(0, random(1, 4096))
	if do(c, late); !errors.Is(late.Err, ErrConn) || !errors.Is(c.Err(), ErrConn) {
		t.Errorf("after the failure: %v, %v", late.Err, c.Err())
	}
	if len(back) != 0 {
		t.Errorf("%d calls came back twice", len(back))
	}
}

func TestCloseGivesItsReason(t *testing.T) {
	c, _ := playedServer(t)
	reason := errors.New("deadline of a call")
	call := newCall(OpPing, 0, 0)
	call.Done = make(collector, 1)
	c.Send([]*Call{call})
	c.Close(reason)
	<-call.Done.(collector)
	if !errors.Is(call.Err, reason) || !errors.Is(call.Err, ErrConn) || !errors.Is(c.Err(), reason) {
		t.Errorf("%v", call.Err)
	}
}

func TestRepliesThatBreakTheProtocolEndTheConnection(t *testing.T) {
	header := func(r reply) []byte {
		b := make([]byte, ReplySize+int(min(r.payload, 1<<16)))
		r.put(b)
		return b
	}
	first := uint64(1) << 32 // of the only slot
	damaged := header(reply{op: OpRead, id: first})
	damaged[20]++
	for name, frame := range map[string][]byte{
		"damaged header":   damaged,
		"unknown id":       header(reply{op: OpRead, id: first + 1}),
		"used id":          header(reply{op: OpRead, id: 2 << 32}),
		"other op":         header(reply{op: OpWrite, id: first}),
		"wrong sums":       header(reply{op: OpRead, id: first, sums: 2, payload: 8}),
		"too much payload": header(reply{op: OpRead, id: first, payload: MaxPayload + 1}),
		"data of no block": header(reply{op: OpRead, id: first, sums: 1, payload: 4 + 4096}),
	} {
		t.Run(name, func(t *testing.T) {
			c, server := playedServer(t)
			call := newCall(OpRead, 0, 4096)
			call.Done = make(collector, 1)
			c.Send([]*Call{call})
			if _, err := server.Write(frame); err != nil {
				t.Fatal(err)
			}
			if <-call.Done.(collector); !errors.Is(call.Err, ErrProtocol) || !errors.Is(call.Err, ErrConn) {
				t.Errorf("%v", call.Err)
			}
		})
	}
}

func TestAReplyToARequestStillBeingSentEndsTheConnection(t *testing.T) {
	c, server := playedServer(t)
	back := make(collector, 64)
	var calls []*Call
	for range 40 { // more than sockets hold
		call := writeCall(0, make([]byte, MaxData))
		call.Done = back
		calls = append(calls, call)
	}
	c.Send(calls)
	var b [ReplySize]byte
	(&reply{op: OpWrite, id: 1<<32 | 39}).put(b[:])
	if _, err := server.Write(b[:]); err != nil {
		t.Fatal(err)
	}
	for range calls {
		if call := <-back; !errors.Is(call.Err, ErrProtocol) {
			t.Fatalf("%v", call.Err)
		}
	}
}

func TestDialRefusals(t *testing.T) {
	f := newFixture(t, nil)
	ctx := context.Background()
	if _, err := Dial(ctx, f.addr, Hello{Server: 1026}); !errors.Is(err, ErrRefused) {
		t.Errorf("another server was meant: %v", err)
	}
	if _, err := Dial(ctx, f.addr, Hello{ClusterID: [16]byte{1}}); !errors.Is(err, ErrRefused) {
		t.Errorf("another cluster: %v", err)
	}
	f.server.Close()
	if _, err := Dial(ctx, f.addr, Hello{}); !errors.Is(err, ErrConn) {
		t.Errorf("nobody listens: %v", err)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		if nc, err := silent.Accept(); err == nil {
			defer nc.Close()
			cancel()
			_, _ = io.Copy(io.Discard, nc)
		}
	}()
	if _, err := Dial(ctx, silent.Addr().String(), Hello{}); !errors.Is(err, ErrConn) {
		t.Errorf("cancelled: %v", err)
	}
}
