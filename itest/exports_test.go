package itest

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A client gets what is exported to it, under the name and with the rights that are on record, and nothing of anything else.
func TestExportsDecideWhoGetsWhat(t *testing.T) {
	need(t, "nbdinfo")
	socket := filepath.Join(t.TempDir(), "nbd.sock")
	u := newUp(t, "--volume", "a=64M", "--volume", "b=32M", "--nbd", "127.0.0.1:0,unix:"+socket)
	tcp := strings.TrimSuffix(u.NBD("a"), "a")
	info := func(uri string) string {
		out, err := exec.CommandContext(newContext(t), "nbdinfo", uri).CombinedOutput()
		if err != nil {
			return "refused"
		}
		if strings.Contains(string(out), "is_read_only: true") {
			return "ro"
		}
		return "rw"
	}
	wants := func(when string, want map[string]string) {
		t.Helper()
		for name, mode := range want {
			uri := tcp + strings.TrimPrefix(name, "unix ")
			if strings.HasPrefix(name, "unix ") {
				uri = "nbd+unix:///" + strings.TrimPrefix(name, "unix ") + "?socket=" + socket
			}
			if got := info(uri); got != mode {
				t.Errorf("%s: %s is %s, want %s", when, name, got, mode)
			}
		}
	}
	command := func(args ...string) {
		t.Helper()
		if _, err := u.Run(newContext(t), "", args...); err != nil {
			t.Fatal(err)
		}
	}
	command("snapshot", "create", "a", "--name", "s")
	wants("at first", map[string]string{"a": "rw", "unix a": "rw", "a@s": "ro", "b": "rw"})
	command("nbd", "export", "a", "--to", "unix", "--read-only")
	command("nbd", "export", "b", "--as", "other", "--on", "another-host")
	command("nbd", "export", "a@s", "--as", "backup", "--to", "127.0.0.0/8")
	wants("exported", map[string]string{"a": "refused", "unix a": "ro", "a@s": "refused", "unix a@s": "ro", "b": "refused", "other": "refused", "unix other": "refused",
		"backup": "ro", "unix backup": "refused"})
	command("nbd", "export", "a", "--to", "127.0.0.1")
	wants("exported anew", map[string]string{"a": "rw", "unix a": "refused", "a@s": "ro"})
	command("nbd", "unexport", "a")
	command("nbd", "unexport", "other")
	wants("unexported", map[string]string{"a": "rw", "unix a": "rw", "b": "rw", "other": "refused", "backup": "ro"})
}

func TestOnlyWhatIsExportedIsServed(t *testing.T) {
	need(t, "nbdinfo")
	u := newUp(t, "--volume", "a=64M", "--nbd-only-exports")
	reached := func() bool { return exec.CommandContext(newContext(t), "nbdinfo", u.NBD("a")).Run() == nil }
	if reached() {
		t.Error("served without being exported")
	}
	if _, err := u.Run(newContext(t), "", "nbd", "export", "a"); err != nil {
		t.Fatal(err)
	}
	if !reached() {
		t.Error("not served although it is exported")
	}
}
