package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pstorage/backup/stream"
	"pstorage/meta/metapb"
)

// sampleExport is one of a volume of 1 MiB with a block of data; since: an increment.
func sampleExport(t *testing.T, since bool) string {
	t.Helper()
	h := stream.Header{Snapshot: stream.ID{1}, Size: 1 << 20, Created: guideTime, Name: "demo@monday"}
	if since {
		h.Snapshot, h.Base, h.BaseSize, h.Name = stream.ID{2}, stream.ID{1}, 1<<20, "demo@tuesday"
	}
	var out bytes.Buffer
	w, err := stream.NewWriter(&out, h)
	for _, step := range []func() error{func() error { return err }, func() error { return w.Data(4096, make([]byte, 4096)) }, func() error { return w.Zeros(1<<19, 1<<12) }, func() error { return w.End() }} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	return out.String()
}

func TestExportsInTheTerminal(t *testing.T) {
	s := newSession(t)
	s.run("", "create", "demo", "-s", "1M")
	s.run("", "snapshot", "create", "demo", "--name", "monday", "-u", guideFirst)
	s.run("", "mkdir", "folder")
	s.meta.files["/half"] = &metapb.FileInfo{Path: "/half", Id: 9, Size: 1 << 20, Incoming: &metapb.Incoming{Snapshot: bytes.Repeat([]byte{7}, 16), Size: 1 << 20, Upto: 4096}}
	s.meta.snaps.all[0].Origin = bytes.Repeat([]byte{9}, 16)
	full, increment := sampleExport(t, false), sampleExport(t, true)
	damaged := full[:600] + "x" + full[601:]
	var transcript strings.Builder
	for _, step := range []struct{ input, line string }{
		{full, "export-check -"}, {increment, "export-check - --json"}, {full[:3000], "export-check -"}, {damaged, "export-check -"}, {"nothing", "export-check -"}, {strings.Repeat("nothing ", 100), "export-check -"},
		{"", "export"}, {"", "export nowhere"}, {"", "export demo@never -o x"}, {"", "export demo@monday --keep x"}, {"", "export demo@monday --from -1"}, {"", "export demo@monday -o x --from 512"},
		{"", "import"}, {full, "import demo"}, {full, "import folder"}, {full, "import half"}, {increment, "import nowhere"}, {increment, "import demo"}, {"", "import demo a b"}, {"nothing", "import demo"}, {damaged[:300], "import demo"},
		{"", "get-attr half"}, {"", "ls"}, {"", "snapshot info demo@monday"},
	} {
		r := s.run(step.input, strings.Fields(step.line)...)
		r.record(&transcript, "pstorage "+step.line)
	}
	golden(t, "exports.txt", transcript.String())
}

func TestAnExportDoesNotTakeThePlaceOfAFile(t *testing.T) {
	s := newSession(t)
	file := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := s.run("", "export", "demo", "-o", file); r.code != exitRefused || !strings.Contains(r.err, "there already") {
		t.Errorf("exit %d, %s", r.code, r.err)
	}
	if err := publish(file, file+"2"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("y"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := publish(file, file+"2"); exitCode(err) != exitRefused {
		t.Error(err)
	}
	if got, err := os.ReadFile(file + "2"); err != nil || string(got) != "x" {
		t.Errorf("%q, %v", got, err)
	}
}
