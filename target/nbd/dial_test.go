package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pstorage/blockstore/block"
)

func TestExportsOfAServerAreListed(t *testing.T) {
	_, path := start(t, demo(t), Limits{})
	all, err := Exports(t.Context(), "unix:"+path)
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	if e := all[0]; e.Name != "demo" || e.Size != 1<<20 || e.ReadOnly() || !e.MultiConn() || e.MinBlock != minimumBlock {
		t.Errorf("%+v", e)
	}
	if e := all[1]; e.Name != "fixed" || !e.ReadOnly() {
		t.Errorf("%+v", e)
	}
}

func TestDialLeavesAConnectionForRequests(t *testing.T) {
	_, path := start(t, demo(t), Limits{})
	c, e, err := Dial(t.Context(), "unix:"+path, "demo", Session{Identity: Identity{1}})
	if err != nil || e.Size != 1<<20 || e.Name != "demo" {
		t.Fatal(e, err)
	}
	p := &peer{t, c}
	defer p.Close()
	p.request(header{cmd: cmdRead, cookie: 7, offset: 512, length: 512}, nil)
	p.wantSimple(nbdOK, 7)
	if got := p.read(512); !bytes.Equal(got, bytes.Repeat([]byte{1}, 512)) {
		t.Error("other data read")
	}
}

func TestDialSaysWhyThereIsNoExport(t *testing.T) {
	_, path := start(t, demo(t), Limits{})
	_, tlsPath := startWith(t, Config{Catalog: demo(t), TLS: TLS{Mode: TLSRequire}})
	for _, x := range []struct {
		address, export string
		want            error
		text            string
	}{
		{"unix:" + path, "nothing", ErrNoExport, `export "nothing"`},
		{"unix:" + path, strings.Repeat("x", maxString+1), ErrNoExport, "names have"},
		{"unix:" + tlsPath, "demo", ErrNeedsTLS, "TLS"},
		{"unix:" + filepath.Join(t.TempDir(), "none"), "demo", nil, "no such file"},
	} {
		_, _, err := Dial(t.Context(), x.address, x.export, Session{})
		if err == nil || x.want != nil && !errors.Is(err, x.want) || !strings.Contains(err.Error(), x.text) {
			t.Errorf("%s %.20s: %v", x.address, x.export, err)
		}
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "silent"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if c, err := l.Accept(); err == nil {
			cancel()
			io.Copy(io.Discard, c)
			c.Close()
		}
	}()
	if _, _, err := Dial(ctx, "unix:"+l.Addr().String(), "demo", Session{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A request of a connection that was replaced takes effect before the new one is let in, or never.
func TestANewConnectionWaitsForWhatTheOldOneHasUnderWay(t *testing.T) {
	g := newGate(block.NewMemory(1 << 20))
	_, path := start(t, newShelf().add("demo", g, false), Limits{})
	old, _, err := Dial(t.Context(), "unix:"+path, "demo", Session{Identity: Identity{1}})
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	(&peer{t, old}).request(header{cmd: cmdWrite, cookie: 1, length: 512}, make([]byte, 512))
	g.await(1)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, _, err := Dial(ctx, "unix:"+path, "demo", Session{Identity{2}, []Identity{{1}}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("let in while a request of the connection before is under way: %v", err)
	}
	if n, err := old.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("the old connection lives")
	}
	g.release(nil)
	c, _, err := Dial(t.Context(), "unix:"+path, "demo", Session{Identity{3}, []Identity{{1}, {2}, {9}}})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

func TestAConnectionThatIsBeingMadeIsReplacedToo(t *testing.T) {
	_, path := start(t, demo(t), Limits{})
	p := dial(t, path)
	p.greet(flagFixedNewstyle | flagNoZeroes)
	id := Identity{5}
	p.option(optReplace, id[:])
	p.wantReply(optReplace, repAck)
	c, _, err := Dial(t.Context(), "unix:"+path, "demo", Session{Identity{6}, []Identity{id}})
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	p.wantEnd()
}

func TestAnIdentityIsOneConnections(t *testing.T) {
	_, path := start(t, demo(t), Limits{})
	id := Identity{1}
	p := dial(t, path)
	p.greet(flagFixedNewstyle | flagNoZeroes)
	for _, x := range []struct {
		data []byte
		want uint32
	}{{nil, repErrInvalid}, {id[:15], repErrInvalid}, {make([]byte, (2+maxReplaced)*identitySize), repErrInvalid}, {append(id[:], id[:]...), repAck}, {id[:], repErrInvalid}} {
		p.option(optReplace, x.data)
		p.wantReply(optReplace, x.want)
	}
	if _, _, err := Dial(t.Context(), "unix:"+path, "demo", Session{Identity: id}); !errors.Is(err, ErrRefused) {
		t.Errorf("a second connection with the identity: %v", err)
	}
}

// FuzzDial lets a server say anything.
func FuzzDial(f *testing.F) {
	be := binary.BigEndian
	greeting := be.AppendUint16(be.AppendUint64(be.AppendUint64(nil, magicServer), magicOption), flagFixedNewstyle|flagNoZeroes)
	reply := func(option, kind uint32, data []byte) []byte {
		b := be.AppendUint32(be.AppendUint32(be.AppendUint64(nil, magicReply), option), kind)
		return append(be.AppendUint32(b, uint32(len(data))), data...)
	}
	info := append(be.AppendUint64([]byte{0, infoExport}, 1<<20), 0, 1)
	f.Add(greeting, false)
	f.Add(bytes.Join([][]byte{greeting, reply(optReplace, repErrUnsup, nil), reply(optGo, repInfo, info), reply(optGo, repAck, nil)}, nil), false)
	f.Add(bytes.Join([][]byte{greeting, reply(optReplace, repAck, nil), reply(optGo, repErrUnknown, []byte("no"))}, nil), false)
	f.Add(bytes.Join([][]byte{greeting, reply(optList, repServer, []byte("\x00\x00\x00\x01v")), reply(optList, repAck, nil), reply(optInfo, repInfo, info), reply(optInfo, repAck, nil)}, nil), true)
	f.Fuzz(func(t *testing.T, in []byte, list bool) {
		near, far := net.Pipe()
		go io.Copy(io.Discard, far)
		go func() {
			far.Write(in)
			far.Close()
		}()
		d := newDialogue(t.Context(), near)
		err := d.greet()
		if err == nil {
			if list {
				_, err = d.exports()
			} else if err = d.identify(Session{Identity: Identity{1}}); err == nil {
				_, err = d.info(optGo, "demo")
			}
		}
		if d.end(err) == nil {
			near.Close()
		}
		far.Close()
	})
}
