package main

import (
	"strings"
	"testing"
)

func TestNBDExportsInTheTerminal(t *testing.T) {
	s := newSession(t)
	s.run("", "create", "demo", "-s", "10G")
	s.run("", "create", "db/data", "-s", "1T")
	s.run("", "snapshot", "create", "db/data", "--name", "nightly", "-u", guideFirst)
	s.run("", "snapshot", "create", "db/data", "-u", guideSecond)
	var transcript strings.Builder
	for _, line := range []string{
		"nbd exports",
		"nbd export demo --to cert:guest1",
		"nbd export db/data@nightly --as backup --to 10.0.0.7,unix --on host2",
		"nbd export db/data@" + guideSecond,
		"nbd export db/data --as backup",
		"nbd export demo --read-only",
		"nbd export demo@none",
		"nbd export nowhere",
		"nbd export demo --to everybody",
		"nbd export",
		"nbd exports",
		"nbd exports --json",
		"nbd unexport backup",
		"nbd unexport backup",
		"nbd unexport",
		"nbd exports",
	} {
		r := s.run("", strings.Fields(line)...)
		r.record(&transcript, "pstorage "+line)
	}
	golden(t, "nbd-exports.txt", transcript.String())
}
