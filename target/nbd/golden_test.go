package nbd

import (
	"bufio"
	"crypto/tls"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestBytesOnTheWire replays testdata/golden: "C" lines are sent, "S" lines are what must come back, byte for byte, "END"
// expects the end of the connection. Hexadecimal, text in quotes, *N for the item before it N times; # begins a comment.
func TestBytesOnTheWire(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, f := range files {
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) {
			_, path := startWith(t, Config{Catalog: demo(t), TLS: goldenTLS(f)})
			replay(t, dial(t, path), f)
		})
	}
}

// goldenTLS is what a file's name says of TLS.
func goldenTLS(file string) TLS {
	for prefix, mode := range map[string]TLSMode{"tls_allow": TLSAllow, "tls_require": TLSRequire} {
		if strings.HasPrefix(filepath.Base(file), prefix) {
			return TLS{Mode: mode, Config: &tls.Config{MinVersion: tls.VersionTLS12}}
		}
	}
	return TLS{}
}

func replay(t *testing.T, p *peer, file string) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		side, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch side {
		case "":
		case "C":
			p.write(decodeLine(t, rest))
		case "S":
			want := decodeLine(t, rest)
			if got := p.read(len(want)); string(got) != string(want) {
				t.Fatalf("%s:%d: got\n%x, want\n%x", file, n, got, want)
			}
		case "END":
			p.wantEnd()
		default:
			t.Fatalf("%s:%d: what is %q?", file, n, side)
		}
	}
}

func decodeLine(t *testing.T, line string) (out []byte) {
	t.Helper()
	var last []byte
	for _, item := range strings.Fields(line) {
		if count, ok := strings.CutPrefix(item, "*"); ok {
			n := 0
			for _, d := range count {
				n = 10*n + int(d-'0')
			}
			out = append(out, []byte(strings.Repeat(string(last), n-1))...)
			continue
		}
		if text, ok := strings.CutPrefix(item, `"`); ok {
			last = []byte(strings.ReplaceAll(strings.TrimSuffix(text, `"`), "_", " "))
		} else if b, err := hex.DecodeString(item); err == nil {
			last = b
		} else {
			t.Fatalf("%q: %v", item, err)
		}
		out = append(out, last...)
	}
	return out
}
