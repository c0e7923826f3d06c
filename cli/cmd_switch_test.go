package main

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestSwitchingInTheTerminal(t *testing.T) {
	s := newSession(t)
	s.run("", "create", "demo", "-s", "10G")
	s.run("", "snapshot", "create", "demo", "--name", "one", "-u", guideFirst)
	s.run("", "snapshot", "create", "demo", "-u", guideSecond)
	s.run("", "clone", "demo@one", "vm")
	var transcript strings.Builder
	for _, line := range []string{
		"snapshot switch demo@one",
		"snapshot switch demo@one --yes",
		"snapshot list demo",
		"get-attr demo",
		"get-attr vm",
		"ls",
		"ls --json",
		"snapshot info demo@one",
		"snapshot switch demo@none --yes",
		"snapshot switch demo --yes",
	} {
		r := s.run("", strings.Fields(line)...)
		r.record(&transcript, "pstorage "+line)
	}
	golden(t, "switch.txt", transcript.String())
}

// What a killed client has left is sorted out by opening it once.
func TestWhatWasLeftUncleanIsOpenedAndClosedBeforeTheSwitch(t *testing.T) {
	s := newSession(t)
	s.run("", "create", "demo", "-s", "1G")
	s.run("", "snapshot", "create", "demo", "--name", "one")
	f := s.meta.files["/demo"]
	f.Clean, s.meta.snaps.opened = false, nil
	if r := s.run("", "snapshot", "switch", "demo@one", "-y"); r.code != 0 || !slices.Equal(s.meta.snaps.opened, []string{"/demo"}) || len(s.meta.snaps.held) != 0 {
		t.Errorf("exit %d, %s; opened %v, held still %v", r.code, r.err, s.meta.snaps.opened, s.meta.snaps.held)
	}
	f.Clean = false
	s.meta.snaps.steal = func(string) error { return status.Error(codes.Unavailable, "in use by another client") }
	if r := s.run("", "snapshot", "switch", "demo@one", "-y"); r.code != exitUnreachable {
		t.Errorf("exit %d, %s", r.code, r.err)
	}
}

func TestSwitchingAsksFirstAndSwitchesWhatWasConfirmed(t *testing.T) {
	s := onHost(t)
	s.tty = true
	s.play("create -n test1 -a 192.168.10.100", "lun-add -t T1 -l 3 -s 10G", "snapshot-create -t T1 -u "+guideFirst)
	s.run("", "create", "iscsi/test1/lun3", "-s", "10G") // the fake's targets have no volumes
	const path = "/iscsi/test1/lun3"
	for line, question := range map[string]string{
		"snapshot switch " + guideFirst:          "Switch iscsi/test1/lun3 to iscsi/test1/lun3@" + guideFirst + "? What was written since",
		"iscsi snapshot-switch -u " + guideFirst: "Switch LUN 3 of " + test1 + " to snapshot " + guideFirst + "? What was written since",
	} {
		if r := s.run("n\n", strings.Fields(line)...); r.code != exitRefused || !strings.Contains(r.err, question) || s.meta.files[path].Over != nil {
			t.Errorf("%s: exit %d, %q", line, r.code, r.err)
		}
	}
	if r := s.iscsi("y\n", "snapshot-switch -u "+guideFirst); r.code != 0 || s.meta.files[path].Over == nil {
		t.Errorf("exit %d, %q", r.code, r.err)
	}
	s.meta.err = status.Error(codes.FailedPrecondition, "in use")
	if r := s.iscsi("", "snapshot-switch -y -u "+guideFirst); r.code != exitRefused {
		t.Errorf("exit %d, %q", r.code, r.err)
	}
}
