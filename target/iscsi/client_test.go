package iscsi

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"pstorage/blockstore/block"
)

const testSize = 64 << 20

// pipes is a listener whose connections are pipes in memory.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
	quit  chan struct{}
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), quit: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.quit:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.quit) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// landed is a connection that came to an address.
type landed struct {
	net.Conn
	local addr
}

func (l landed) LocalAddr() net.Addr { return l.local }

func (p *pipes) dialAt(t testing.TB, local addr) net.Conn {
	t.Helper()
	mine, theirs := net.Pipe()
	if local != "" {
		theirs = landed{theirs, local}
	}
	select {
	case p.conns <- theirs:
	case <-p.quit:
		t.Fatal("listener is closed")
	}
	return mine
}

// shelf is a catalog of devices; how often each is open is counted.
type shelf struct {
	mu   sync.Mutex
	devs map[string]block.Device
	open map[string]int
	err  error
}

func newShelf(names ...string) *shelf {
	s := &shelf{devs: map[string]block.Device{}, open: map[string]int{}}
	for _, n := range names {
		s.devs[n] = block.NewMemory(testSize)
	}
	return s
}

func shelfInfo(name string, d block.Device) block.VolumeInfo {
	info := block.VolumeInfo{Name: name, Size: d.Size()}
	copy(info.ID[:], name)
	return info
}

func (s *shelf) List(context.Context) (list []block.VolumeInfo, err error) {
	for _, name := range []string{"a", "b", "disk", "other"} {
		if d := s.devs[name]; d != nil {
			list = append(list, shelfInfo(name, d))
		}
	}
	return list, s.err
}

func (s *shelf) Open(_ context.Context, name string) (block.Device, block.VolumeInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.devs[name]
	if d == nil {
		return nil, block.VolumeInfo{}, fmt.Errorf("%s: %w", name, block.ErrNotFound)
	}
	if s.err != nil {
		return nil, block.VolumeInfo{}, s.err
	}
	s.open[name]++
	return &shelved{d, s, name}, shelfInfo(name, d), nil
}

type shelved struct {
	block.Device
	s    *shelf
	name string
}

func (d *shelved) Close() error {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	d.s.open[d.name]--
	return nil
}

// portal is a server on pipes, ended with the test.
type portal struct {
	*Server
	t     testing.TB
	shelf *shelf
	pipes *pipes
}

// within runs a test in a bubble, where time is its own and no goroutine may be left over.
func within(t *testing.T, cfg Config, f func(t *testing.T, p *portal)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := startPortal(t, cfg)
		defer p.end()
		f(t, p)
	})
}

func startPortal(t testing.TB, cfg Config) *portal {
	s := newShelf("disk", "other")
	cfg.Catalog = s
	p := &portal{New(cfg), t, s, newPipes()}
	go p.Serve(p.pipes)
	return p
}

// end shuts the server down and checks that nothing is left.
func (p *portal) end() {
	p.t.Helper()
	if err := p.Shutdown(context.Background()); err != nil {
		p.t.Error(err)
	}
	p.shelf.mu.Lock()
	defer p.shelf.mu.Unlock()
	for name, n := range p.shelf.open {
		if n != 0 {
			p.t.Errorf("volume %s is open %d times at the end", name, n)
		}
	}
	if p.budget.free != p.cfg.TotalBytes {
		p.t.Errorf("%d bytes of memory not given back", p.cfg.TotalBytes-p.budget.free)
	}
}

// client is an initiator that sends what it is told to.
type client struct {
	t     testing.TB
	conn  net.Conn
	cmdSN uint32
	tag   uint32
	trace func(sent bool, b []byte)
}

func (p *portal) client() *client { return p.clientAt("") }

// clientAt is one that comes to an address.
func (p *portal) clientAt(local addr) *client {
	return &client{t: p.t, conn: p.pipes.dialAt(p.t, local), cmdSN: 100, tag: 0x10}
}

var normalKeys = []string{"InitiatorName=iqn.test:host", "TargetName=" + DefaultPrefix + "disk", "SessionType=Normal", "InitialR2T=No", "ImmediateData=Yes",
	"MaxBurstLength=262144", "FirstBurstLength=65536", "MaxRecvDataSegmentLength=65536"}

// session logs a client in and takes the unit attention that a new session begins with.
func (p *portal) session(keys ...string) *client {
	p.t.Helper()
	c := p.client()
	if len(keys) == 0 {
		keys = normalKeys
	}
	c.login(keys...)
	if r := c.do(tur(), 0, nil); r.header[3] != 2 {
		p.t.Fatalf("first command of a session: status %x", r.header[3])
	}
	return c
}

// named is session for another initiator, with the last bytes of an ISID.
func (p *portal) named(name string) *client {
	keys := append([]string{"InitiatorName=iqn.test:" + name}, normalKeys[1:]...)
	return p.session(keys...)
}

func text(pairs ...string) (b []byte) {
	for _, p := range pairs {
		b = append(append(b, p...), 0)
	}
	return b
}

func (c *client) newHeader(op byte) header {
	h := make(header, headerSize)
	h[0] = op
	return h
}

// send writes a PDU.
func (c *client) send(h header, data []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(c.encode(h, data)); err != nil {
		c.t.Fatalf("sending: %v", err)
	}
}

func (c *client) encode(h header, data []byte) []byte {
	h.setDataLen(len(data))
	b := append(bytes.Clone(h), data...)
	b = append(b, make([]byte, padded(len(data))-len(data))...)
	if c.trace != nil {
		c.trace(true, b)
	}
	return b
}

// receive reads a PDU.
func (c *client) receive() pdu {
	c.t.Helper()
	p, err := c.tryReceive()
	if err != nil {
		c.t.Fatalf("receiving: %v", err)
	}
	return p
}

func (c *client) tryReceive() (pdu, error) {
	h := make(header, headerSize)
	if _, err := io.ReadFull(c.conn, h); err != nil {
		return pdu{}, err
	}
	rest := make([]byte, padded(h.dataLen()))
	if _, err := io.ReadFull(c.conn, rest); err != nil {
		return pdu{}, err
	}
	if c.trace != nil {
		c.trace(false, append(bytes.Clone(h), rest...))
	}
	return pdu{header: h, data: rest[:h.dataLen()]}, nil
}

// closed checks that the server ends the connection.
func (c *client) closed() {
	c.t.Helper()
	for {
		p, err := c.tryReceive()
		if err != nil {
			return
		}
		if p.opcode() != opNopIn && p.opcode() != opReject && p.opcode() != opAsync {
			c.t.Fatalf("got %x instead of the end of the connection", p.opcode())
		}
	}
}

func loginHeader(c *client, current, next byte) header {
	h := c.newHeader(opLogin | flagImmediate)
	h[1] = current<<2 | next | flagTransit
	copy(h[8:], []byte{0x80, 0, 0, 0, 0, 1})
	h.put(16, 7)
	h.put(24, c.cmdSN)
	return h
}

// login goes to the full feature phase in one step and returns the answer.
func (c *client) login(keys ...string) pdu {
	c.t.Helper()
	c.send(loginHeader(c, stageOperational, stageFull), text(keys...))
	p := c.receive()
	if p.opcode() != opLoginReply || p.header[36] != 0 || p.header[37] != 0 {
		c.t.Fatalf("login: status %02x%02x", p.header[36], p.header[37])
	}
	return p
}

// command makes a SCSI command for LUN 1; length is what it expects to read, or to write if there is data or write
// is set.
func (c *client) command(cdb []byte, length int, flags byte) header {
	h := c.newHeader(opCommand)
	h[1] = flagFinal | flags
	h[9] = theLUN
	c.tag++
	h.put(16, c.tag)
	h.put(20, uint32(length))
	h.put(24, c.cmdSN)
	c.cmdSN++
	copy(h[32:], cdb)
	return h
}

// do sends a command and returns the PDU that answers it; data-in of several PDUs is joined.
func (c *client) do(cdb []byte, room int, out []byte) pdu {
	c.t.Helper()
	switch {
	case out != nil:
		c.send(c.command(cdb, len(out), flagWrite), out)
	case room > 0:
		c.send(c.command(cdb, room, flagRead), nil)
	default:
		c.send(c.command(cdb, 0, 0), nil)
	}
	return c.answer()
}

// answer reads the answer to a command.
func (c *client) answer() pdu {
	c.t.Helper()
	var data []byte
	for {
		p := c.receive()
		switch p.opcode() {
		case opDataIn:
			data = append(data, p.data...)
			if p.header[1]&flagStatus == 0 {
				continue
			}
			p.data = data
			return p
		case opResponse:
			return p
		default:
			c.t.Fatalf("PDU %02x instead of an answer", p.opcode())
		}
	}
}

// good does a command that has to succeed and returns its data-in.
func (c *client) good(cdb []byte, room int, out []byte) []byte {
	c.t.Helper()
	p := c.do(cdb, room, out)
	if p.header[3] != 0 {
		c.t.Fatalf("command %02x: status %02x %x", cdb[0], p.header[3], p.data)
	}
	return p.data
}

// senseOf returns sense key and code of a response.
func senseOf(p pdu) (key byte, code uint16) {
	if p.opcode() != opResponse || p.header[3] != 2 || len(p.data) < 20 {
		return 0, 0
	}
	return p.data[4] & 15, binary.BigEndian.Uint16(p.data[14:])
}

func (c *client) expectSense(p pdu, key byte, code uint16) {
	c.t.Helper()
	if k, x := senseOf(p); k != key || x != code {
		c.t.Fatalf("status %02x, sense %x %04x; want %x %04x", p.header[3], k, x, key, code)
	}
}

func tur() []byte { return make([]byte, 6) }

func read10(lba uint32, blocks int) []byte {
	b := make([]byte, 10)
	b[0] = 0x28
	binary.BigEndian.PutUint32(b[2:], lba)
	binary.BigEndian.PutUint16(b[7:], uint16(blocks))
	return b
}

func write10(lba uint32, blocks int) []byte {
	b := read10(lba, blocks)
	b[0] = 0x2a
	return b
}

// dataOut makes a Data-Out PDU.
func (c *client) dataOut(tag, ttt uint32, sn, offset int, final bool) header {
	h := c.newHeader(opDataOut)
	if final {
		h[1] = flagFinal
	}
	h[9] = theLUN
	h.put(16, tag)
	h.put(20, ttt)
	h.put(36, uint32(sn))
	h.put(40, uint32(offset))
	return h
}

func pattern(n int, seed byte) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>9*5+i) ^ seed
	}
	return b
}

// manage makes a task management request, immediate.
func (c *client) manage(function byte, referenced uint32) header {
	h := c.newHeader(opTaskRequest | flagImmediate)
	h[1] = flagFinal | function
	h[9] = theLUN
	c.tag++
	h.put(16, c.tag)
	h.put(20, referenced)
	h.put(24, c.cmdSN)
	return h
}

func (c *client) logout() header {
	h := c.newHeader(opLogout | flagImmediate)
	h[1] = flagFinal
	c.tag++
	h.put(16, c.tag)
	h.put(24, c.cmdSN)
	return h
}

// gated is a device that keeps requests until it is told to go on.
type gated struct {
	block.Device
	mu   sync.Mutex
	hold bool
	kept []*block.Request
	came chan int // how many are kept, each time some come
}

func newGated(d block.Device) *gated {
	return &gated{Device: d, hold: true, came: make(chan int, 1000)}
}

func (g *gated) Submit(batch []*block.Request) {
	g.mu.Lock()
	if !g.hold {
		g.mu.Unlock()
		g.Device.Submit(batch)
		return
	}
	defer g.mu.Unlock()
	g.kept = append(g.kept, batch...)
	g.came <- len(g.kept)
}

// release lets everything go, now and later.
func (g *gated) release() {
	g.mu.Lock()
	kept := g.kept
	g.kept, g.hold = nil, false
	g.mu.Unlock()
	g.Device.Submit(kept)
}
