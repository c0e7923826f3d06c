package iscsi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

var plain framing // without digests

func TestParseTakesExactlyOnePDU(t *testing.T) {
	b := make([]byte, headerSize+8+5+3)
	b[4] = 2 // words of additional header
	b[7] = 5
	copy(b[headerSize:], "ahsahsahhello")
	next := append(bytes.Clone(b), 1, 2, 3)
	p, size, err := plain.parse(next, 100)
	if err != nil || size != len(b) || string(p.ahs) != "ahsahsah" || string(p.data) != "hello" {
		t.Fatalf("size %d, ahs %q, data %q, %v", size, p.ahs, p.data, err)
	}
	for n := range len(b) {
		if _, size, err := plain.parse(b[:n], 100); size != 0 || err != nil {
			t.Fatalf("of %d bytes: size %d, %v", n, size, err)
		}
	}
	if _, _, err := plain.parse(b[:headerSize], 4); !errors.Is(err, errSegment) {
		t.Fatalf("longer than the limit: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(make([]byte, headerSize))
	f.Add(append(append(make([]byte, 4), 2, 0, 0, 9), make([]byte, 100)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, size, err := plain.parse(b, 1<<16)
		if err != nil || size == 0 {
			return
		}
		if size > len(b) || headerSize+len(p.ahs)+padded(len(p.data)) != size {
			t.Fatalf("size %d of %d, ahs %d, data %d", size, len(b), len(p.ahs), len(p.data))
		}
		readLength(p.ahs)
		_, _ = lunNumber(p.lun())
	})
}

func TestReadLengthOfABidirectionalCommand(t *testing.T) {
	other := []byte{0, 6, 1, 0, 9, 9, 9, 9, 9, 0, 0, 0} // extended CDB, with padding
	bidi := []byte{0, 5, 2, 0, 0, 0, 16, 0}
	for _, x := range []struct {
		ahs  []byte
		want uint32
	}{{nil, 0}, {bidi, 4096}, {append(bytes.Clone(other), bidi...), 4096}, {other, 0}, {[]byte{0xff, 0xff, 2, 0}, 0}, {[]byte{0, 0, 0, 0}, 0}} {
		if got := readLength(x.ahs); got != x.want {
			t.Errorf("%x: %d, want %d", x.ahs, got, x.want)
		}
	}
}

func TestLUNNumbers(t *testing.T) {
	for v, want := range map[uint64]int{0: 0, 1 << 48: 1, 0x00ff << 48: 255, 0x4001 << 48: 1, 0x7fff << 48: 0x3fff} {
		if n, ok := lunNumber(v); !ok || n != want {
			t.Errorf("%016x: %d, %v", v, n, ok)
		}
	}
	for _, v := range []uint64{0x0101 << 48, 0x8001 << 48, 0xc101 << 48, 1<<48 | 1} {
		if n, ok := lunNumber(v); ok {
			t.Errorf("%016x is taken for %d", v, n)
		}
	}
}

func TestTextIsTakenOnlyInItsForm(t *testing.T) {
	pairs, err := parseText([]byte("A=1\x00X-b.c_d=x=y\x00\x00Empty=\x00\x00\x00"))
	if err != nil || len(pairs) != 3 || pairs[1] != (pair{"X-b.c_d", "x=y"}) || pairs[2] != (pair{"Empty", ""}) {
		t.Fatalf("%v, %v", pairs, err)
	}
	bad := map[string]string{
		"no end":       "A=1",
		"no value":     "A\x00",
		"no key":       "=1\x00",
		"space in key": "A b=1\x00",
		"long key":     strings.Repeat("k", maxKey+1) + "=1\x00",
		"long value":   "A=" + strings.Repeat("v", maxValue+1) + "\x00",
		"many":         strings.Repeat("A=1\x00", maxTextKeys+1),
	}
	for name, s := range bad {
		if _, err := parseText([]byte(s)); !errors.Is(err, errText) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("InitiatorName=iqn.a:b\x00SessionType=Normal\x00"))
	f.Add([]byte("MaxBurstLength=0x10000\x00HeaderDigest=CRC32C,None\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pairs, err := parseText(b)
		if err != nil {
			return
		}
		p := defaultParams()
		for _, x := range pairs {
			if !validKey(x.key) || strings.Contains(x.value, "\x00") {
				t.Fatalf("%q", x)
			}
			if a := p.negotiate(x.key, x.value); strings.ContainsAny(a, "\x00=") {
				t.Fatalf("%q answered with %q", x, a)
			}
		}
		p.settle()
		if p.maxSend < minSegment || p.maxSend > maxSegment || p.maxSend%4 != 0 || p.firstBurst > p.maxBurst || p.maxBurst < minSegment {
			t.Fatalf("%+v", p)
		}
	})
}

func TestNegotiationAnswersAsTheStandardSays(t *testing.T) {
	tests := []struct{ key, offer, answer string }{
		{"HeaderDigest", "CRC32C,None", "CRC32C"},
		{"HeaderDigest", "None,CRC32C", "None"},
		{"DataDigest", "None", "None"},
		{"HeaderDigest", "CRC32C", "CRC32C"},
		{"DataDigest", "CRC16", "Reject"},
		{"InitialR2T", "Yes", "Yes"},
		{"InitialR2T", "No", "No"},
		{"InitialR2T", "yes", "Reject"},
		{"ImmediateData", "Yes", "Yes"},
		{"ImmediateData", "No", "No"},
		{"MaxBurstLength", "16776192", "1048576"},
		{"MaxBurstLength", "0x1000", "4096"},
		{"MaxBurstLength", "511", "Reject"},
		{"MaxBurstLength", "16777216", "Reject"},
		{"MaxBurstLength", "-5", "Reject"},
		{"FirstBurstLength", "262144", "65536"},
		{"FirstBurstLength", "4096", "4096"},
		{"MaxRecvDataSegmentLength", "262144", ""},
		{"MaxRecvDataSegmentLength", "100", "Reject"},
		{"MaxOutstandingR2T", "8", "1"},
		{"MaxOutstandingR2T", "0", "Reject"},
		{"MaxConnections", "8", "1"},
		{"ErrorRecoveryLevel", "2", "0"},
		{"ErrorRecoveryLevel", "3", "Reject"},
		{"DefaultTime2Wait", "2", "2"},
		{"DefaultTime2Retain", "20", "0"},
		{"DataPDUInOrder", "No", "Yes"},
		{"DataSequenceInOrder", "Yes", "Yes"},
		{"IFMarker", "Yes", "No"},
		{"OFMarkInt", "1~2", "Irrelevant"},
		{"TaskReporting", "ResponseFence,RFC3720", "RFC3720"},
		{"iSCSIProtocolLevel", "2", "1"},
		{"X-com.example", "1", "NotUnderstood"},
		{"maxburstlength", "512", "NotUnderstood"},
	}
	for _, x := range tests {
		p := defaultParams()
		if got := p.negotiate(x.key, x.offer); got != x.answer {
			t.Errorf("%s=%s: %q, want %q", x.key, x.offer, got, x.answer)
		}
	}
}

func TestBurstsAgreeWhateverIsNegotiated(t *testing.T) {
	p := defaultParams()
	p.negotiate("MaxBurstLength", "4096")
	p.negotiate("MaxRecvDataSegmentLength", "1023")
	p.settle()
	if p.firstBurst != 4096 || p.maxSend != 1020 {
		t.Fatalf("%+v", p)
	}
}

// FuzzReadLength walks any additional header segments to their end.
func FuzzReadLength(f *testing.F) {
	f.Add([]byte{0, 5, 2, 0, 0, 0, 16, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := readLength(b)
		if n != 0 && !bytes.Contains(b, binary.BigEndian.AppendUint32(nil, n)) {
			t.Fatalf("%d is not in %x", n, b)
		}
	})
}
