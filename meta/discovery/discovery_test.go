package discovery

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestOnlyPlainNamesAreClusters(t *testing.T) {
	for _, good := range []string{"pcs1", "a", "My-Cluster_2"} {
		if err := CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "a b", "a/b", "..", "ä", strings.Repeat("x", MaxName+1)} {
		if err := CheckName(bad); !errors.Is(err, ErrName) {
			t.Errorf("%q: %v, want ErrName", bad, err)
		}
	}
}

func TestServersComeFromTheCommandLineOrTheList(t *testing.T) {
	paths := Paths(t.TempDir(), "pcs1")
	if _, err := Resolve(nil, paths); !errors.Is(err, ErrUnknown) {
		t.Fatalf("without any: %v, want ErrUnknown", err)
	}
	if err := os.MkdirAll(paths.Etc, 0o755); err != nil {
		t.Fatal(err)
	}
	list := "# servers\n10.30.100.101:2510\n\n 10.30.100.102 # second\n[fd00::1]:3000\n"
	if err := os.WriteFile(paths.BootstrapList(), []byte(list), 0o644); err != nil {
		t.Fatal(err)
	}
	check(t, nil, paths, "10.30.100.101:2511", "10.30.100.102:2511", "[fd00::1]:3001")
	check(t, []string{"a:1,b", "c:7"}, paths, "a:2", "b:2511", "c:8")
}

// Servers that came later than bs.list are known to programs that are started anew, unless servers are named.
func TestWhatTheClusterNamedIsKnownAtTheNextStart(t *testing.T) {
	paths := Paths(t.TempDir(), "pcs1")
	if err := os.MkdirAll(paths.Etc, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(paths.BootstrapList(), []byte("10.30.100.101\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Learn(paths, []string{"10.30.100.102:2511", "10.30.100.101:2511"}); err != nil {
			t.Fatal(err)
		}
	}
	check(t, nil, paths, "10.30.100.101:2511", "10.30.100.102:2511")
	check(t, []string{"a:1"}, paths, "a:2")
	if err := Learn(paths, nil); err != nil { // nothing is no news
		t.Fatal(err)
	}
	check(t, nil, paths, "10.30.100.101:2511", "10.30.100.102:2511")
	for range 2 {
		if err := Forget(paths); err != nil {
			t.Fatal(err)
		}
	}
	check(t, nil, paths, "10.30.100.101:2511")
}

func check(t *testing.T, explicit []string, paths Layout, want ...string) {
	t.Helper()
	got, err := Resolve(explicit, paths)
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("%v, %v; want %v", got, err, want)
	}
}

func TestBadAddressesAreRefused(t *testing.T) {
	for _, bad := range []string{"a:b", "a:0", "a:65535", "a:70000", ":2510", "", "a b:1", "http://x:1"} {
		if a, err := ClientAddress(bad); !errors.Is(err, ErrAddress) {
			t.Errorf("%q gave %q, %v; want ErrAddress", bad, a, err)
		}
	}
}

func TestTheRootMovesEveryFolder(t *testing.T) {
	t.Setenv(RootVariable, "/tmp/n1")
	p := Paths("", "c")
	for _, dir := range []string{p.Etc, p.Lib, p.Log, p.Run} {
		if !strings.HasPrefix(dir, "/tmp/n1/") {
			t.Errorf("%s is outside the root", dir)
		}
	}
	if want := "/tmp/n1/etc/pstorage/clusters/c/bs.list"; filepath.Clean(p.BootstrapList()) != want {
		t.Errorf("%s, want %s", p.BootstrapList(), want)
	}
}

func FuzzList(f *testing.F) {
	f.Add("a:1\n#x\nb")
	f.Fuzz(func(t *testing.T, data string) {
		for _, e := range parseList(data) {
			if a, err := ClientAddress(e); err == nil && !strings.Contains(a, ":") {
				t.Fatalf("%q became %q", e, a)
			}
		}
	})
}

func TestFilesOfTheMachineAreTheSameForAllClusters(t *testing.T) {
	for _, cluster := range []string{"", "pcs1"} {
		l := Paths("/x", cluster)
		if l.HostID() != "/x/etc/pstorage/host_id" || l.Location() != "/x/etc/pstorage/location" {
			t.Errorf("cluster %q: %s, %s", cluster, l.HostID(), l.Location())
		}
	}
}
