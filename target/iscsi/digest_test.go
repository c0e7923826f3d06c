package iscsi

import (
	"bytes"
	"encoding/hex"
	"io"
	"testing"
)

func TestDigestsAreThoseOfTheStandard(t *testing.T) {
	up := make([]byte, 32)
	for i := range up {
		up[i] = byte(i)
	}
	for want, data := range map[string][]byte{ // RFC 7143, appendix A.4
		"aa36918a": make([]byte, 32),
		"43aba862": bytes.Repeat([]byte{0xff}, 32),
		"4e79dd46": up,
	} {
		if got := hex.EncodeToString(appendDigest(nil, data)); got != want {
			t.Errorf("%x: digest %s, want %s", data, got, want)
		}
	}
}

// digested is a client of a session with digests.
type digested struct {
	*client
	framing
	spoil func(b []byte) // changes what is sent
}

func (p *portal) digested(f framing) *digested {
	value := map[bool]string{true: "CRC32C", false: "None"}
	c := &digested{p.client(), f, func([]byte) {}}
	c.login(append([]string{"HeaderDigest=" + value[f.headerDigest] + ",None", "DataDigest=" + value[f.dataDigest] + ",None"}, normalKeys...)...)
	return c
}

func (d *digested) send(h header, data []byte) {
	d.t.Helper()
	h.setDataLen(len(data))
	b := bytes.Clone(h)
	if d.headerDigest {
		b = appendDigest(b, h)
	}
	if len(data) > 0 {
		padding := make([]byte, padded(len(data))-len(data))
		data = append(bytes.Clone(data), padding...)
		b = append(b, data...)
		if d.dataDigest {
			b = appendDigest(b, data)
		}
	}
	d.spoil(b)
	if _, err := d.conn.Write(b); err != nil {
		d.t.Fatal(err)
	}
}

func (d *digested) receive() (pdu, error) {
	b := make([]byte, headerSize)
	if _, err := io.ReadFull(d.conn, b); err != nil {
		return pdu{}, err
	}
	more := padded(header(b).dataLen())
	if d.dataDigest && more > 0 {
		more += digestSize
	}
	if d.headerDigest {
		more += digestSize
	}
	b = append(b, make([]byte, more)...)
	if _, err := io.ReadFull(d.conn, b[headerSize:]); err != nil {
		return pdu{}, err
	}
	p, size, err := d.parse(b, 1<<20)
	if err != nil || size != len(b) || p.damaged {
		d.t.Fatalf("PDU of %d bytes: %d, %v, damaged %v", len(b), size, err, p.damaged)
	}
	return p, nil
}

// next receives a PDU that has to come.
func (d *digested) next() pdu {
	d.t.Helper()
	p, err := d.receive()
	if err != nil {
		d.t.Fatal(err)
	}
	return p
}

func bothDigests(t *testing.T, f func(t *testing.T, p *portal, d *digested)) {
	for _, x := range []framing{{true, false}, {false, true}, {true, true}} {
		within(t, Config{}, func(t *testing.T, p *portal) {
			d := p.digested(x)
			d.send(d.command(tur(), 0, 0), nil)
			if r := d.next(); r.header[3] != 2 {
				t.Fatalf("first command: %x", r.header)
			}
			f(t, p, d)
		})
	}
}

func TestDataGoBothWaysWithDigests(t *testing.T) {
	bothDigests(t, func(t *testing.T, _ *portal, d *digested) {
		data := pattern(200<<10, 5)
		d.send(d.command(write10(0, 400), len(data), flagWrite), data[:1000])
		for from := 1000; from < len(data); {
			r := d.next()
			if r.opcode() != opR2T {
				t.Fatalf("instead of an R2T: %x", r.header)
			}
			n := int(r.u32(44))
			d.send(d.dataOut(r.tag(), r.u32(20), 0, from, true), data[from:from+n])
			from += n
		}
		if r := d.next(); r.opcode() != opResponse || r.header[3] != 0 {
			t.Fatalf("write: %x", r.header)
		}
		d.send(d.command(read10(0, 400), len(data), flagRead), nil)
		var got []byte
		for len(got) < len(data) {
			r := d.next()
			got = append(got, r.data...)
		}
		if !bytes.Equal(got, data) {
			t.Error("other data read")
		}
		h := d.newHeader(opNopOut | flagImmediate)
		h[1] = flagFinal
		h.put(16, 0x42)
		h.put(20, reservedTag)
		h.put(24, d.cmdSN)
		d.send(h, []byte("odd"))
		if r := d.next(); string(r.data) != "odd" {
			t.Errorf("ping: %q", r.data)
		}
		for range 100 { // answers that go out together
			d.send(d.command(tur(), 0, 0), nil)
		}
		for range 100 {
			if r := d.next(); r.opcode() != opResponse || r.header[3] != 0 {
				t.Fatalf("answer: %x", r.header)
			}
		}
	})
}

func TestDamagedDataFailTheirCommandAndAreNotWritten(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		d := p.digested(framing{true, true})
		d.send(d.command(tur(), 0, 0), nil)
		d.next()
		data := pattern(4096, 5)
		d.send(d.command(write10(0, 8), len(data), flagWrite), nil)
		r := d.next()
		d.spoil = func(b []byte) { b[len(b)-100] ^= 1 }
		d.send(d.dataOut(r.tag(), r.u32(20), 0, 0, true), data)
		d.spoil = func([]byte) {}
		if r := d.next(); r.opcode() != opReject || r.header[2] != rejectDigest {
			t.Errorf("instead of a reject: %x", r.header)
		}
		r = d.next()
		d.expectSense(r, 0xb, 0x4705)
		d.send(d.command(read10(0, 8), 4096, flagRead), nil)
		if r := d.next(); !bytes.Equal(r.data, make([]byte, 4096)) {
			t.Error("damaged data were written")
		}
	})
}

func TestDamagedHeaderOrCommandEndsTheSession(t *testing.T) {
	for what, at := range map[string]int{"header": 33, "header's digest": headerSize, "data": headerSize + 4 + 50} {
		within(t, Config{}, func(t *testing.T, p *portal) {
			d := p.digested(framing{true, true})
			d.send(d.command(tur(), 0, 0), nil)
			d.next()
			d.spoil = func(b []byte) { b[at] ^= 0x10 }
			d.send(d.command(write10(0, 1), 512, flagWrite), pattern(512, 1))
			for {
				r, err := d.receive()
				if err != nil {
					return
				}
				if r.opcode() != opReject {
					t.Fatalf("%s: answered with %x", what, r.header)
				}
			}
		})
	}
}

func FuzzParseWithDigests(f *testing.F) {
	h := make(header, headerSize)
	h.setDataLen(5)
	f.Add(appendDigest(append(appendDigest(bytes.Clone(h), h), "hello\x00\x00\x00"...), []byte("hello\x00\x00\x00")), true, true)
	f.Fuzz(func(t *testing.T, b []byte, head, data bool) {
		p, size, err := framing{head, data}.parse(b, 1<<16)
		if err == nil && (size > len(b) || size != 0 && len(p.data) > size) {
			t.Errorf("%d bytes of %d", size, len(b))
		}
	})
}
