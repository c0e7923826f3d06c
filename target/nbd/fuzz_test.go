package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"pstorage/blockstore/block"
)

// script is a client that says what it has to say, and listens to nothing.
type script struct {
	io.Reader
	out bytes.Buffer
}

func (s *script) Write(b []byte) (int, error) { return s.out.Write(b) }

func FuzzNegotiation(f *testing.F) {
	add := func(flags byte, options ...[]byte) {
		for mode := TLSOff; mode <= TLSRequire; mode++ {
			f.Add(append([]byte{0, 0, 0, flags}, bytes.Join(options, nil)...), uint8(mode))
		}
	}
	add(3, encodeOption(optStructuredReply, nil), encodeOption(optStartTLS, nil), encodeOption(optStartTLS, nil), encodeOption(optGo, infoFor("demo")))
	add(2, encodeOption(optStartTLS, nil), encodeOption(optList, nil))
	add(3, encodeOption(optStructuredReply, nil), encodeOption(optSetMetaContext, queriesFor("demo", contextAllocation)),
		encodeOption(optGo, infoFor("demo", infoBlockSize, infoName)))
	add(3, encodeOption(optExtendedHeaders, nil), encodeOption(optStructuredReply, nil), encodeOption(optSetMetaContext, queriesFor("demo", contextAllocation)),
		encodeOption(optGo, infoFor("demo")))
	add(3, encodeOption(optExtendedHeaders, []byte("x")), encodeOption(optExtendedHeaders, nil), encodeOption(optExportName, []byte("demo")))
	add(1, encodeOption(optList, nil), encodeOption(optExportName, []byte("fixed")))
	add(3, encodeOption(optListMetaContext, queriesFor("demo", "base:", "x:y")), encodeOption(optAbort, []byte("bye")))
	add(3, encodeOption(optStructuredReply, nil), encodeOption(optListMetaContext, queriesFor("demo")), encodeOption(optSetMetaContext,
		queriesFor("demo", "qemu:dirty-bitmap:one", "pstorage:changed:two", "qemu:dirty-bitmap:")), encodeOption(optGo, infoFor("demo")))
	add(3, encodeOption(999, make([]byte, 70000)), encodeOption(optInfo, infoFor("nope", 1, 2, 3)))
	add(3, encodeOption(optReplace, bytes.Repeat([]byte("id"), 8)), encodeOption(optReplace, make([]byte, 33)), encodeOption(optReplace, make([]byte, 48)),
		encodeOption(optGo, infoFor("demo")))
	m := block.NewMemory(1 << 20)
	f.Fuzz(func(t *testing.T, in []byte, mode uint8) {
		s := newShelf().add("demo", m, false).add("fixed", m, true)
		client := &script{Reader: bytes.NewReader(in)}
		older := &archive{shelf: s}
		n := &negotiation{catalog: older, stream: client, ctx: context.Background(), claims: &claims{server: New(Config{Catalog: s})}}
		n.mode = TLSMode(mode % 3)
		n.upgrade = func(context.Context) (io.ReadWriter, error) { return client, nil }
		a, err := n.run()
		if (a == nil) == (err == nil) {
			t.Fatalf("agreement %v with error %v", a, err)
		}
		if a != nil {
			_ = a.close()
		}
		if still := older.opened.Load(); still != 0 {
			t.Fatalf("%d older states are open", still)
		}
		if s.opened != len(s.closed) {
			t.Fatalf("%d devices opened, %d closed", s.opened, len(s.closed))
		}
		checkReplies(t, client.out.Bytes()[18:])
	})
}

// checkReplies parses the option replies that were sent, up to an answer to EXPORT_NAME.
func checkReplies(t *testing.T, b []byte) {
	for len(b) > 0 && len(b) != 10 && len(b) != 134 {
		if len(b) < optionReplySize || binary.BigEndian.Uint64(b) != magicReply {
			t.Fatalf("not a reply: %x", b)
		}
		n := int(binary.BigEndian.Uint32(b[16:]))
		if n > len(b)-optionReplySize {
			t.Fatalf("reply longer than what was sent: %x", b)
		}
		b = b[optionReplySize+n:]
	}
}

func FuzzRequests(f *testing.F) {
	data := make([]byte, 80<<10)
	filter := append(binary.BigEndian.AppendUint64(nil, 4096), 0, 0, 0, 1)
	for kind := range uint8(3) {
		encode := kindOfFuzz(kind).encode
		f.Add(encode(header{cmd: cmdRead, offset: 512, length: 4096}, nil), kind, uint16(10))
		f.Add(encode(header{cmd: cmdWrite, length: 80 << 10}, data), kind, uint16(9000))
		f.Add(append(encode(header{cmd: cmdWrite, length: 3}, data[:3]), encode(header{cmd: cmdBlockStatus, length: 1 << 20}, nil)...), kind, uint16(1))
		f.Add(encode(header{cmd: cmdWriteZeroes, flags: 3, length: 1 << 31}, nil), kind, uint16(0))
		f.Add(append(encode(header{cmd: cmdBlockStatus, length: filterSize + 4}, filter), encode(header{cmd: cmdCache, length: 1 << 20}, nil)...), kind, uint16(40))
		f.Add(encode(header{cmd: cmdTrim, offset: 1 << 63, length: 1 << 63}, nil), kind, uint16(3))
	}
	server := New(Config{Catalog: newShelf()})
	f.Fuzz(func(t *testing.T, in []byte, kind uint8, split uint16) {
		terms := kindOfFuzz(kind)
		l := newReel(frames(in, int(split)))
		l.keep = true
		c := newConn(server, server.export("demo"), terms, block.NewMemory(1<<20), l)
		c.about = []metaContext{{name: contextAllocation}}[:terms.contexts]
		if err := c.serve(); err != nil && !errors.Is(err, errProtocol) {
			t.Fatal(err)
		}
		if c.account.held != 0 || c.inflight != 0 {
			t.Fatalf("%d bytes and %d requests left", c.account.held, c.inflight)
		}
		if !terms.structured { // how long a reply is cannot be told without the requests
			return
		}
		if terms.extended {
			checkExtended(t, l.out)
		} else {
			checkChunks(t, l.out)
		}
	})
}

// kindOfFuzz makes terms of a number: simple, structured, extended.
func kindOfFuzz(kind uint8) terms {
	return terms{structured: kind%3 > 0, extended: kind%3 == 2, contexts: min(1, int(kind%3))}
}

func checkExtended(t *testing.T, b []byte) {
	for len(b) > 0 {
		if len(b) < extendedSize || binary.BigEndian.Uint32(b) != magicExtendedReply {
			t.Fatalf("not a reply: %x", b[:min(len(b), 40)])
		}
		n := binary.BigEndian.Uint64(b[24:])
		if n > uint64(len(b)-extendedSize) {
			t.Fatalf("payload of %d bytes in %d sent", n, len(b)-extendedSize)
		}
		b = b[extendedSize+n:]
	}
}

func frames(in []byte, size int) (out [][]byte) {
	for size > 0 && len(in) > size {
		out = append(out, in[:size])
		in = in[size:]
	}
	return append(out, in)
}

func checkChunks(t *testing.T, b []byte) {
	for len(b) > 0 {
		size := simpleSize
		if len(b) >= structuredSize && binary.BigEndian.Uint32(b) == magicStructured {
			size = structuredSize + int(binary.BigEndian.Uint32(b[16:]))
		} else if len(b) < simpleSize || binary.BigEndian.Uint32(b) != magicSimple {
			t.Fatalf("not a reply: %x", b[:min(len(b), 40)])
		}
		if size > len(b) {
			t.Fatalf("reply of %d bytes, %d sent", size, len(b))
		}
		b = b[size:]
	}
}
