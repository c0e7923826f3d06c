package embedded

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pstorage/target/nbd"
)

func TestEveryVolumeHasOneLinePerWayIn(t *testing.T) {
	got := Ways([]string{"a", "b c"}, []string{"127.0.0.1:10809", "unix:/run/nbd.sock"}, []string{"127.0.0.1:3260"}, nbd.TLS{Mode: nbd.TLSAllow})
	want := []string{
		"nbd://127.0.0.1:10809/a", "nbd+unix:///a?socket=%2Frun%2Fnbd.sock", "iscsi://127.0.0.1:3260/iqn.2014-04.com.pstorage:a/1",
		"nbd://127.0.0.1:10809/b%20c", "nbd+unix:///b%20c?socket=%2Frun%2Fnbd.sock", "iscsi://127.0.0.1:3260/iqn.2014-04.com.pstorage:b c/1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	secure := nbd.TLS{Mode: nbd.TLSRequire}
	if one, other := NBD("127.0.0.1:10809", "a", secure), NBD("unix:/s", "a", secure); one != "nbds://127.0.0.1:10809/a" || other != "nbds+unix:///a?socket=%2Fs" {
		t.Errorf("encrypted: %s, %s", one, other)
	}
	if lines := Ways([]string{"a"}, nil, nil, nbd.TLS{}); len(lines) != 0 {
		t.Errorf("nothing is served, and %q was printed", lines)
	}
}

func TestWhatIsMadeIsThereWhollyOrNotAtAll(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "part")
	cut := errors.New("cut off")
	err := makeOnce(dir, func(dir string) error {
		if err := os.MkdirAll(filepath.Join(dir, "half"), 0o700); err != nil {
			return err
		}
		return cut
	})
	if !errors.Is(err, cut) || exists(dir) {
		t.Fatalf("%v; the folder is there: %t", err, exists(dir))
	}
	made := 0
	for range 2 {
		err := makeOnce(dir, func(dir string) error {
			made++
			if exists(filepath.Join(dir, "half")) {
				t.Error("leftovers of the attempt before")
			}
			return os.MkdirAll(filepath.Join(dir, "whole"), 0o700)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if made != 1 || !exists(filepath.Join(dir, "whole")) {
		t.Errorf("made %d times", made)
	}
}
