package blockstore

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestAnIdentitySurvivesARestartWithANewIncarnation(t *testing.T) {
	dir := t.TempDir()
	a, err := LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadIdentity(dir); !errors.Is(err, ErrIdentityInUse) {
		t.Errorf("taken twice: %v", err)
	}
	if err := a.Release(); err != nil {
		t.Fatal(err)
	}
	b, err := LoadIdentity(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Release()
	if a.ID != b.ID || b.Incarnation != a.Incarnation+1 {
		t.Errorf("%x %d became %x %d", a.ID, a.Incarnation, b.ID, b.Incarnation)
	}
}

func TestADamagedIdentityIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, identityFile), []byte("rubbish 7\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadIdentity(dir); !errors.Is(err, ErrIdentity) {
		t.Errorf("got %v", err)
	}
}

func FuzzParseIdentity(f *testing.F) {
	f.Add("01234567-89ab-cdef-0123-456789abcdef 12\n")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := parseIdentity(text); err != nil && id != (Identity{}) {
			t.Errorf("%q: both %v and %v", text, id, err)
		}
	})
}
