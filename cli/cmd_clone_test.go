package main

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"pstorage/meta/metapb"
)

func TestClonesInTheTerminal(t *testing.T) {
	s := newSession(t)
	s.run("", "create", "golden", "-s", "10G")
	s.run("", "snapshot", "create", "golden", "--name", "v1", "-u", guideFirst)
	var transcript strings.Builder
	for _, line := range []string{
		"clone golden@v1 vm1",
		"clone " + guideFirst + " vm2 --replicas 2:1",
		"clone golden@v1 vm1",
		"clone golden@v2 vm3",
		"clone golden vm3",
		"clone golden@v1",
		"clone golden@v1 vm3 --chunk-size 1M",
	} {
		r := s.run("", strings.Fields(line)...)
		r.record(&transcript, "pstorage "+line)
	}
	golden(t, "clones.txt", transcript.String())
}

// vm is a session with a clone of 10 GiB, chunks of 64 MiB.
func vm(t *testing.T) (*session, *metapb.FileInfo) {
	s := newSession(t)
	s.run("", "create", "golden", "-s", "10G")
	s.run("", "snapshot", "create", "golden", "--name", "v1")
	if r := s.run("", "clone", "golden@v1", "vm"); r.code != 0 {
		t.Fatal(r)
	}
	return s, s.meta.files["/vm"]
}

func TestAFlatteningIsWaitedFor(t *testing.T) { synctest.Test(t, aFlatteningIsWaitedFor) }

func aFlatteningIsWaitedFor(t *testing.T) {
	for _, holder := range []string{"", "someone"} {
		s, f := vm(t)
		f.Holder = holder
		s.meta.looked = func(f *metapb.FileInfo) {
			if !f.Flattening {
				t.Error("it is waited for what nobody was told to do")
			}
			if f.Chunks += 60; f.Chunks > 120 {
				f.Over, f.Flattening = nil, false
			}
		}
		r := s.run("", "flatten", "vm")
		if want := "vm: 60 chunks, at most 100 more\nvm: 120 chunks, at most 40 more\n"; r.code != 0 || r.out != "vm needs no other volume\n" || r.err != want {
			t.Errorf("held by %q: exit %d\n%s%s", holder, r.code, r.out, r.err)
		}
		if opened := slices.Contains(s.meta.snaps.opened, "/vm"); opened != (holder == "") || len(s.meta.snaps.held) != 0 {
			t.Errorf("held by %q: opened %v, held still %v", holder, opened, s.meta.snaps.held)
		}
		s.meta.looked = nil
		if r := s.run("", "flatten", "vm"); r.code != 0 || r.out != "vm needs no other volume\n" || r.err != "" {
			t.Errorf("again: exit %d\n%s%s", r.code, r.out, r.err)
		}
	}
}

func TestAFlatteningThatIsCancelledEnds(t *testing.T) {
	synctest.Test(t, aFlatteningThatIsCancelledEnds)
}

func aFlatteningThatIsCancelledEnds(t *testing.T) {
	s, f := vm(t)
	f.Holder = "someone"
	s.meta.looked = func(f *metapb.FileInfo) {
		s.meta.looked = nil
		if r := s.run("", "flatten", "vm", "--cancel"); r.code != 0 || r.out != "vm is a clone of golden@v1\n" || f.Flattening {
			t.Errorf("exit %d\n%s%s", r.code, r.out, r.err)
		}
	}
	if r := s.run("", "flatten", "vm"); r.code != exitRefused || !strings.Contains(r.err, "cancelled") || r.out != "" {
		t.Errorf("exit %d\n%s%s", r.code, r.out, r.err)
	}
	if r := s.run("", "flatten", "none"); r.code != exitNotFound {
		t.Error(r)
	}
}

// The holder has gone, and the lease with it: the command goes on in its place.
func TestAHolderThatLeavesIsReplaced(t *testing.T) { synctest.Test(t, aHolderThatLeavesIsReplaced) }

func aHolderThatLeavesIsReplaced(t *testing.T) {
	s, f := vm(t)
	f.Holder = "someone"
	looks := 0
	s.meta.looked = func(f *metapb.FileInfo) {
		if f.Holder = ""; len(s.meta.snaps.opened) > 1 { // the first was the snapshot's
			f.Over = nil
		}
		looks++
	}
	if r := s.run("", "flatten", "vm"); r.code != 0 || looks != askEvery+1 {
		t.Errorf("exit %d after %d looks\n%s%s", r.code, looks, r.out, r.err)
	}
}
