package wire

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/store"
)

var update = flag.Bool("update", false, "write golden files anew")

func goldenHello() *Hello {
	h := &Hello{Incarnation: 0x1112131415161718, Session: 0x2122232425262728, Server: 1026, Peer: true}
	for i := range h.ClusterID {
		h.ClusterID[i], h.Client[i] = byte(i), byte(0xf0+i)
	}
	return h
}

func goldenList() []store.ChunkVersion {
	return []store.ChunkVersion{{Index: 1, Version: 2}, {Index: 0xfffffffe, Version: 1 << 63}}
}

// TestFormatStaysAsItIs: what older versions of the program send and expect must not change.
func TestFormatStaysAsItIs(t *testing.T) {
	q := make([]byte, RequestSize)
	(&request{op: OpWrite, flags: FlagSync, sums: 2, id: 0x0102030405060708, chunk: chunk.ID{File: 1025, Index: 3}, layer: 4, epoch: 5,
		version: 6, offset: 4096 - 512, length: 1024, payload: 1032}).put(q)
	p := make([]byte, ReplySize)
	(&reply{op: OpRead, status: StaleVersion, sums: 1, id: 9, aux0: 10, aux1: 11, payload: 4100}).put(p)
	var out strings.Builder
	for _, part := range []struct {
		name  string
		bytes []byte
	}{{"request", q}, {"reply", p}, {"hello", AppendHello(nil, goldenHello())}, {"list", AppendChunkVersions(nil, goldenList())},
		{"sums", appendSums(nil, []uint32{chunk.Absent, chunk.Zeros, 0xdeadbeef})}} {
		fmt.Fprintf(&out, "%s\n%s", part.name, hex.Dump(part.bytes))
	}
	const name = "testdata/frames.golden"
	if *update {
		if err := os.WriteFile(name, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("frames differ from %s:\n%s", name, out.String())
	}
}

func TestHelloAndListsComeBackAsTheyWent(t *testing.T) {
	h, err := DecodeHello(AppendHello(nil, goldenHello()))
	if err != nil || h != *goldenHello() {
		t.Errorf("%+v, %v", h, err)
	}
	for _, list := range [][]store.ChunkVersion{nil, goldenList()} {
		got, err := DecodeChunkVersions(AppendChunkVersions(nil, list))
		if err != nil || !slices.Equal(got, list) {
			t.Errorf("%v, %v", got, err)
		}
	}
}

func TestAFlippedBitIsNoticed(t *testing.T) {
	q := make([]byte, RequestSize)
	(&request{op: OpRead, id: 1}).put(q)
	p := make([]byte, ReplySize)
	(&reply{op: OpRead, id: 1}).put(p)
	for name, test := range map[string]struct {
		frame  []byte
		decode func([]byte) error
	}{
		"request": {q, new(request).get},
		"reply":   {p, new(reply).get},
		"hello":   {AppendHello(nil, goldenHello()), func(b []byte) error { _, err := DecodeHello(b); return err }},
		"list":    {AppendChunkVersions(nil, goldenList()), func(b []byte) error { _, err := DecodeChunkVersions(b); return err }},
	} {
		if err := test.decode(test.frame); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for bit := range 8 * len(test.frame) {
			test.frame[bit/8] ^= 1 << (bit % 8)
			if test.decode(test.frame) == nil {
				t.Errorf("%s: bit %d", name, bit)
			}
			test.frame[bit/8] ^= 1 << (bit % 8)
		}
	}
}

func FuzzRequestHeader(f *testing.F) {
	b := make([]byte, RequestSize)
	(&request{op: OpWrite, sums: 1, id: 1, length: 4096, payload: 4100}).put(b)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var r request
		if len(b) < RequestSize || r.get(b) != nil {
			return
		}
		again := make([]byte, RequestSize)
		if r.put(again); !bytes.Equal(again, b[:RequestSize]) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

func FuzzReplyHeader(f *testing.F) {
	b := make([]byte, ReplySize)
	(&reply{op: OpRead, sums: 1, id: 1, payload: 4100}).put(b)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		var r reply
		if len(b) < ReplySize || r.get(b) != nil {
			return
		}
		again := make([]byte, ReplySize)
		if r.put(again); !bytes.Equal(again, b[:ReplySize]) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add(AppendHello(nil, goldenHello()))
	f.Fuzz(func(t *testing.T, b []byte) {
		// The checksum is made right, or nothing would get past it.
		if len(b) == helloSize {
			copy(b[helloSize-4:], appendSums(nil, []uint32{crc(b[:helloSize-4])}))
		}
		h, err := DecodeHello(b)
		if err != nil {
			return
		}
		if again := AppendHello(nil, &h); !bytes.Equal(again[:56], b[:56]) {
			t.Errorf("%x became %x", b, again)
		}
	})
}

func FuzzChunkVersions(f *testing.F) {
	f.Add(AppendChunkVersions(nil, goldenList()))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 4 {
			copy(b[len(b)-4:], appendSums(nil, []uint32{crc(b[:len(b)-4])}))
		}
		list, err := DecodeChunkVersions(b)
		if err != nil {
			return
		}
		if again := AppendChunkVersions(nil, list); !bytes.Equal(again, b) {
			t.Errorf("%x became %x", b, again)
		}
	})
}
