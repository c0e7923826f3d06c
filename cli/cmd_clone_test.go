package main

import (
	"strings"
	"testing"
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
