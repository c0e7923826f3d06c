package itest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pstorage/itest/cluster"
)

// TestEncryptionAsDocumented makes certificates as docs/clients.md says, and uses them.
func TestEncryptionAsDocumented(t *testing.T) {
	need(t, "openssl", "nbdinfo")
	text, err := os.ReadFile("../docs/clients.md")
	if err != nil {
		t.Fatal(err)
	}
	dir, script := t.TempDir(), ""
	_, section, _ := strings.Cut(string(text), "### Encryption")
	for line := range strings.Lines(section) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			script += command
		} else if strings.HasPrefix(line, "## ") {
			break
		}
	}
	openssl := exec.Command("sh", "-ec", script)
	openssl.Dir = dir
	if out, err := openssl.CombinedOutput(); err != nil || !strings.Contains(script, "server-cert.pem") {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	p, err := cluster.Start(newContext(t), "bench-target", filepath.Join(t.TempDir(), "log"), nil,
		binary, "bench-target", "--size", "16M", "--nbd", "127.0.0.1:0", "--nbd-tls", "require", "--nbd-tls-certificates", dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	uri := p.Way("nbds://") + "?tls-certificates=" + dir
	if out, err := exec.Command("nbdinfo", uri).CombinedOutput(); err != nil || !strings.Contains(string(out), "with TLS") {
		t.Errorf("nbdinfo %s: %v\n%s", uri, err, out)
	}
	u := newUp(t, "--nbd-tls", "require", "--nbd-tls-certificates", dir)
	if out, err := exec.Command("nbdinfo", u.NBD("demo")+"?tls-certificates="+dir).CombinedOutput(); err != nil || !strings.Contains(string(out), "with TLS") {
		t.Errorf("nbdinfo %s: %v\n%s", u.NBD("demo"), err, out)
	}
	if out, err := exec.Command("nbdinfo", strings.Replace(p.Way("nbds://"), "nbds", "nbd", 1)).CombinedOutput(); err == nil {
		t.Errorf("without TLS: %s", out)
	}
}
