package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"pstorage/blockstore/block"
)

// patience bounds waits for something that is certain to happen.
const patience = 20 * time.Second

// shelf is a catalog of fixed devices that counts who has them.
type shelf struct {
	mu      sync.Mutex
	volumes []block.VolumeInfo
	devices map[string]block.Device
	refuse  error // of Open
	opened  int
	closed  chan string
}

func newShelf() *shelf {
	return &shelf{devices: map[string]block.Device{}, closed: make(chan string, 1000)}
}

func (s *shelf) add(name string, d block.Device, readOnly bool) *shelf {
	s.volumes = append(s.volumes, block.VolumeInfo{Name: name, Size: d.Size(), ReadOnly: readOnly})
	s.devices[name] = d
	return s
}

func (s *shelf) List(context.Context) ([]block.VolumeInfo, error) { return s.volumes, nil }

func (s *shelf) Open(_ context.Context, name string) (block.Device, block.VolumeInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refuse != nil {
		return nil, block.VolumeInfo{}, s.refuse
	}
	for _, v := range s.volumes {
		if v.Name == name {
			s.opened++
			return &handle{Device: s.devices[name], shelf: s, name: name}, v, nil
		}
	}
	return nil, block.VolumeInfo{}, block.ErrNotFound
}

// handle is a device whose Close is only counted.
type handle struct {
	block.Device
	shelf *shelf
	name  string
}

func (h *handle) Close() error {
	h.shelf.closed <- h.name
	return nil
}

// demo is a shelf with a 1 MiB volume "demo", its sector n filled with byte n, and a read-only one, "fixed".
func demo(t testing.TB) *shelf {
	m := block.NewMemory(1 << 20)
	data := make([]byte, 1<<20)
	for i := range data {
		data[i] = byte(i / block.SectorSize)
	}
	submit(t, m, &block.Request{Op: block.Write, Length: int64(len(data)), Data: data})
	return newShelf().add("demo", m, false).add("fixed", m, true)
}

type signal chan error

func (s signal) Complete(batch []*block.Request) { s <- batch[0].Err }

func submit(t testing.TB, d block.Device, r *block.Request) {
	t.Helper()
	done := make(signal, 1)
	r.Done = done
	d.Submit([]*block.Request{r})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// start serves the shelf on a unix socket, and checks in the end that nothing is left behind.
func start(t testing.TB, s *shelf, limits Limits) (*Server, string) {
	t.Helper()
	return startWith(t, Config{Catalog: s, Limits: limits})
}

func startWith(t testing.TB, cfg Config) (*Server, string) {
	t.Helper()
	server := New(cfg)
	path := filepath.Join(t.TempDir(), "nbd.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serveUntilEnd(t, server, l)
	return server, path
}

// serveUntilEnd serves on l until the test is over.
func serveUntilEnd(t testing.TB, server *Server, l net.Listener) {
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Error("shutdown:", err)
		}
		if err := <-served; err != nil {
			t.Error("serve:", err)
		}
		checkNothingHeld(t, server)
	})
}

// checkNothingHeld: all memory charged to the total has been given back.
func checkNothingHeld(t testing.TB, s *Server) {
	t.Helper()
	if !s.memory.total.TryAcquire(s.limits.TotalBytes) {
		t.Error("memory is still held after all connections have ended")
		return
	}
	s.memory.total.Release(s.limits.TotalBytes)
}

// peer is a client made of bytes.
type peer struct {
	t testing.TB
	net.Conn
}

func dial(t testing.TB, path string) *peer {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &peer{t, c}
}

// connect enters transmission on an export.
func connect(t testing.TB, path, export string, structured bool) *peer {
	t.Helper()
	return connectWith(t, path, export, terms{structured: structured})
}

func connectWith(t testing.TB, path, export string, terms terms) *peer {
	t.Helper()
	p := dial(t, path)
	p.greet(flagFixedNewstyle | flagNoZeroes)
	p.enter(export, terms)
	return p
}

// enter negotiates the terms and enters transmission.
func (p *peer) enter(export string, terms terms) {
	p.t.Helper()
	if terms.extended {
		p.option(optExtendedHeaders, nil)
		p.wantReply(optExtendedHeaders, repAck)
	}
	if terms.structured {
		if !terms.extended {
			p.option(optStructuredReply, nil)
			p.wantReply(optStructuredReply, repAck)
		}
		p.option(optSetMetaContext, queriesFor(export, contextAllocation))
		p.wantReply(optSetMetaContext, repMetaContext)
		p.wantReply(optSetMetaContext, repAck)
	}
	p.option(optGo, infoFor(export))
	p.wantReply(optGo, repInfo)
	p.wantReply(optGo, repAck)
}

func (p *peer) greet(flags uint32) {
	p.t.Helper()
	p.read(18)
	p.write(binary.BigEndian.AppendUint32(nil, flags))
}

func (p *peer) write(b []byte) {
	p.t.Helper()
	if _, err := p.Write(b); err != nil {
		p.t.Fatal("write:", err)
	}
}

func (p *peer) read(n int) []byte {
	p.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(p.Conn, b); err != nil {
		p.t.Fatalf("read of %d bytes: %v", n, err)
	}
	return b
}

// wantEnd expects the server to have closed the connection, with nothing more to read.
func (p *peer) wantEnd() {
	p.t.Helper()
	if b, err := io.ReadAll(p.Conn); len(b) > 0 || isTimeout(err) {
		p.t.Fatalf("connection is open: %x, %v", b, err)
	}
}

func isTimeout(err error) bool {
	t, ok := err.(net.Error)
	return ok && t.Timeout()
}

func (p *peer) option(option uint32, data []byte) {
	p.t.Helper()
	p.write(encodeOption(option, data))
}

func encodeOption(option uint32, data []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, magicOption)
	b = binary.BigEndian.AppendUint32(b, option)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func (p *peer) wantReply(option, kind uint32) []byte {
	p.t.Helper()
	b := p.read(optionReplySize)
	if m := binary.BigEndian.Uint64(b); m != magicReply {
		p.t.Fatalf("reply begins with %#x", m)
	}
	data := p.read(int(binary.BigEndian.Uint32(b[16:])))
	if o, k := binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:]); o != option || k != kind {
		p.t.Fatalf("reply to option %d of type %#x (%q), want one to %d of type %#x", o, k, data, option, kind)
	}
	return data
}

func infoFor(export string, wanted ...uint16) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(export)))
	b = append(b, export...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(wanted)))
	for _, w := range wanted {
		b = binary.BigEndian.AppendUint16(b, w)
	}
	return b
}

func queriesFor(export string, queries ...string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(export)))
	b = append(b, export...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(queries)))
	for _, q := range queries {
		b = binary.BigEndian.AppendUint32(b, uint32(len(q)))
		b = append(b, q...)
	}
	return b
}

func encodeRequest(h header, data []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, magicRequest)
	b = binary.BigEndian.AppendUint16(b, h.flags)
	b = binary.BigEndian.AppendUint16(b, h.cmd)
	b = binary.BigEndian.AppendUint64(b, h.cookie)
	b = binary.BigEndian.AppendUint64(b, h.offset)
	b = binary.BigEndian.AppendUint32(b, uint32(h.length))
	return append(b, data...)
}

func encodeExtended(h header, data []byte) []byte {
	if len(data) > 0 {
		h.flags |= cmdFlagPayload
	}
	b := binary.BigEndian.AppendUint32(nil, magicExtendedRequest)
	b = binary.BigEndian.AppendUint16(b, h.flags)
	b = binary.BigEndian.AppendUint16(b, h.cmd)
	b = binary.BigEndian.AppendUint64(b, h.cookie)
	b = binary.BigEndian.AppendUint64(b, h.offset)
	b = binary.BigEndian.AppendUint64(b, h.length)
	return append(b, data...)
}

// encode is encodeRequest with the headers agreed on.
func (t terms) encode(h header, data []byte) []byte {
	if t.extended {
		return encodeExtended(h, data)
	}
	return encodeRequest(h, data)
}

func (p *peer) request(h header, data []byte) {
	p.t.Helper()
	p.write(encodeRequest(h, data))
}

// simple reads a simple reply.
func (p *peer) simple() (errno, uint64) {
	p.t.Helper()
	b := p.read(simpleSize)
	if m := binary.BigEndian.Uint32(b); m != magicSimple {
		p.t.Fatalf("simple reply begins with %#x", m)
	}
	return errno(binary.BigEndian.Uint32(b[4:])), binary.BigEndian.Uint64(b[8:])
}

func (p *peer) wantSimple(code errno, cookie uint64) {
	p.t.Helper()
	if e, c := p.simple(); e != code || c != cookie {
		p.t.Fatalf("reply %d to request %d, want %d to %d", e, c, code, cookie)
	}
}

// alive checks that the connection still answers, in step.
func (p *peer) alive() {
	p.t.Helper()
	p.request(header{cmd: cmdRead, cookie: 4711, offset: 1024, length: 512}, nil)
	p.wantSimple(nbdOK, 4711)
	if got := p.read(512); !bytes.Equal(got, bytes.Repeat(got[:1], 512)) {
		p.t.Fatal("out of step")
	}
}

// await waits for a condition that another goroutine is about to make true.
func await(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: ", what)
		}
	}
}
