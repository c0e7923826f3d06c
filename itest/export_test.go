package itest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"pstorage/itest/check"
	"pstorage/itest/cluster"
	"pstorage/itest/nbd"
)

// exportLab is a cluster with a volume v, of 64 MiB, a model of it, and a folder for exports.
type exportLab struct {
	t      *testing.T
	c      *cluster.Cluster
	model  *check.Volume
	client *nbd.Client
	dir    string
}

func newExportLab(t *testing.T) *exportLab {
	t.Helper()
	c := newCluster(t, cluster.Options{})
	command(t, c, "create", "v", "-s", "64M", "--chunk-size", "1M")
	l := &exportLab{t, c, check.New(64*mib, 17), connect(t, c.NBD("v")), t.TempDir()}
	t.Cleanup(func() { _ = l.client.Close() })
	return l
}

func (l *exportLab) change(writes int) {
	l.t.Helper()
	pass(l.t, l.model.Run(l.client, writes, nil))
}

func (l *exportLab) file(name string) string { return filepath.Join(l.dir, name) }

// refused runs a command that has to fail, with input, and returns what it says.
func (l *exportLab) refused(input []byte, code int, args ...string) string {
	l.t.Helper()
	cmd := l.command(args...)
	cmd.Stdin = bytes.NewReader(input)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code {
		l.t.Fatalf("%v: %v, want exit code %d: %s", args, err, code, out)
	}
	return string(out)
}

// command is one that the test starts itself.
func (l *exportLab) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(newContext(l.t), binary, append([]string{"-c", cluster.Name}, args...)...)
	cmd.Env = append(os.Environ(), "PSTORAGE_ROOT="+l.c.Dir)
	return cmd
}

// holds verifies that an export, of a volume or a snapshot, has what the model has.
func (l *exportLab) holds(export string) {
	l.t.Helper()
	client := connect(l.t, l.c.NBD(export))
	defer client.Close()
	if err := l.model.Verify(client); err != nil {
		l.t.Errorf("%s: %v", export, err)
	}
}

// importOf is what the metadata servers say of an import into a volume, nil if there is none.
func (l *exportLab) importOf(volume string) (out *struct{ Upto int64 }) {
	l.t.Helper()
	var v struct{ Import *struct{ Upto int64 } }
	if err := json.Unmarshal([]byte(command(l.t, l.c, "get-attr", volume, "--json")), &v); err != nil {
		l.t.Fatal(err)
	}
	return v.Import
}

// With real processes: a full export and increments, imported as another volume, are what the volume had.
func TestImportedVolumesEqualTheExportedSnapshots(t *testing.T) {
	l := newExportLab(t)
	l.change(400)
	command(t, l.c, "export", "v", "--keep", "one", "-o", l.file("one"))
	command(t, l.c, "import", "copy", l.file("one"))
	l.holds("v@one")
	l.holds("copy@one")
	since := "one"
	for _, name := range []string{"two", "three"} {
		l.change(100)
		command(t, l.c, "snapshot", "create", "v", "--name", name)
		command(t, l.c, "export", "v@"+name, "--since", since, "-o", l.file(name))
		command(t, l.c, "import", "copy", l.file(name))
		l.holds("copy@" + name)
		since = name
	}
	if info := command(t, l.c, "export-check", l.file("three")); !strings.Contains(info, "Snapshot: v@three\n") || !strings.Contains(info, "Complete: yes\n") {
		t.Error(info)
	}
	if out := command(t, l.c, "import", "copy", l.file("two")); !strings.Contains(out, "there already") {
		t.Error(out)
	}
	l.holds("copy")
	_ = l.client.Close()
	identical(t, l.c)
}

// What was not imported to its end nobody can open, whatever ended it; the same command goes on.
func TestABrokenImportIsClosedUntilItHasGoneOn(t *testing.T) {
	l := newExportLab(t)
	l.change(400)
	command(t, l.c, "export", "v", "--keep", "one", "-o", l.file("one"))
	l.change(100)
	command(t, l.c, "export", "v", "--keep", "two", "-o", l.file("all"))
	command(t, l.c, "export", "v@two", "--since", "one", "-o", l.file("two"))
	command(t, l.c, "import", "based", l.file("one"))
	for volume, name := range map[string]string{"copy": "all", "based": "two"} {
		whole, err := os.ReadFile(l.file(name))
		pass(t, err)
		half := whole[:len(whole)/2]
		if out := l.refused(half, 6, "import", volume); !strings.Contains(out, "has not ended") {
			t.Error(out)
		}
		l.closed(volume)
		l.killed(half, volume)
		l.closed(volume)
		half = bytes.Clone(whole)
		half[len(half)*3/4] ^= 1
		l.refused(half, 6, "import", volume)
		l.closed(volume)
		other, err := os.ReadFile(l.file("one"))
		pass(t, err)
		l.refused(other, 5, "import", volume)
		command(t, l.c, "import", volume, l.file(name))
		l.holds(volume)
		l.holds(volume + "@two")
		if l.importOf(volume) != nil {
			t.Errorf("%s is still being imported", volume)
		}
	}
}

// closed verifies that nobody can use a volume.
func (l *exportLab) closed(volume string) {
	l.t.Helper()
	if client, err := nbd.Connect(l.c.NBD(volume)); err == nil {
		_ = client.Close()
		l.t.Errorf("%s is open to clients", volume)
	}
	l.refused(nil, 5, "snapshot", "create", volume)
	if i := l.importOf(volume); i == nil || i.Upto == 0 {
		l.t.Errorf("%s: %+v", volume, i)
	}
}

// killed kills an import that has begun, and waits for more.
func (l *exportLab) killed(half []byte, volume string) {
	l.t.Helper()
	cmd := l.command("import", volume)
	in, err := cmd.StdinPipe()
	pass(l.t, err)
	pass(l.t, cmd.Start())
	if _, err := io.Copy(in, bytes.NewReader(half)); err != nil {
		l.t.Fatal(err)
	}
	pass(l.t, cmd.Process.Kill())
	_ = cmd.Wait()
}
