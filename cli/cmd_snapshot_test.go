package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/metapb"
)

const (
	guideFirst  = "a1f54314-bc06-40c6-a587-965feb9d85bb"
	guideSecond = "9c98b442-7482-4fd0-9c45-9259374ca84e"
)

func TestSnapshotsInTheTerminal(t *testing.T) {
	s := newSession(t)
	s.run("", "create", "demo", "-s", "10G")
	s.run("", "create", "logs/web", "-s", "1T")
	var transcript strings.Builder
	for _, line := range []string{
		"snapshot list",
		"snapshot create demo --name before --protected -u " + guideFirst,
		"snapshot create demo -u " + guideSecond,
		"snapshot create logs/web --name before -u 00000000-0000-0000-0000-00000000000a",
		"snapshot create logs/web --name before",
		"snapshot create demo nowhere",
		"snapshot create demo logs/web -u " + guideFirst,
		"snapshot create demo -u 17",
		"snapshot create",
		"snapshot list",
		"snapshot list demo --json",
		"snapshot list nowhere",
		"snapshot info demo@before",
		"snapshot info demo@" + guideSecond,
		"snapshot info " + guideSecond + " --json",
		"snapshot info demo@after",
		"snapshot info demo",
		"snapshot unprotect demo@before",
		"snapshot protect " + guideSecond,
		"snapshot list demo",
		"snapshot delete demo@before",
		"snapshot delete " + guideSecond + " --yes",
		"snapshot delete demo@before demo@after --yes",
		"snapshot delete demo@before logs/web@before --yes",
		"snapshot list",
		"snapshot frobnicate",
	} {
		r := s.run("", strings.Fields(line)...)
		r.record(&transcript, "pstorage "+line)
	}
	golden(t, "snapshots.txt", transcript.String())
}

func TestLUNSnapshotsAreThoseOfTheGuide(t *testing.T) {
	s := onHost(t)
	s.play("create -n pcs4 -a 192.168.10.104", "lun-add -t pcs4 -l 1 -s 10G")
	for _, step := range []struct{ line, out string }{
		{"snapshot-create -t pcs4 -l 1 -u " + guideFirst, "Snapshot a1f54314-bc06-40c6-a587-965feb9d85bb successfully created.\n"},
		{"snapshot-create -t iqn.2014-04.com.pstorage:pcs4 -l 1 -u " + guideSecond, "Snapshot 9c98b442-7482-4fd0-9c45-9259374ca84e successfully created.\n"},
		{"snapshot-list -t iqn.2014-04.com.pstorage:pcs4 -l 1", `CREATED             C UUID                                 PARENT_UUID
2014-04-11 13:16:51   a1f54314-bc06-40c6-a587-965feb9d85bb 00000000-0000-0000-0000-000000000000
2014-04-11 13:16:57 * 9c98b442-7482-4fd0-9c45-9259374ca84e a1f54314-bc06-40c6-a587-965feb9d85bb
`},
		{"snapshot-info -u 9c98b442-7482-4fd0-9c45-9259374ca84e", `Target: iqn.2014-04.com.pstorage:pcs4
LUN: 1
Created: 2014-04-11 13:16:57
Parent: a1f54314-bc06-40c6-a587-965feb9d85bb
Description: None
`},
		{"snapshot-delete -y -u a1f54314-bc06-40c6-a587-965feb9d85bb", ""},
	} {
		if r := s.iscsi("", step.line); r.code != 0 || r.out != step.out || r.err != "" {
			t.Errorf("pstorage-iscsi %s: exit %d\n%s%swant\n%s", step.line, r.code, r.out, r.err, step.out)
		}
	}
}

func TestAllLUNsOfATargetAreTakenAtOnce(t *testing.T) {
	s := onHost(t)
	s.play("create -n test1 -a 192.168.10.100", "lun-add -t T1 -l 0 -s 10G", "lun-add -t T1 -l 7 -s 1G")
	r := s.iscsi("", "snapshot-create -t T1 --description nightly")
	asked := s.meta.snaps.requests
	if r.code != 0 || len(asked) != 1 || !slices.Equal(asked[0].Paths, []string{"/iscsi/test1/lun0", "/iscsi/test1/lun7"}) || bytes.Equal(asked[0].Ids[0], asked[0].Ids[1]) {
		t.Fatalf("exit %d, %s; asked for %v", r.code, r.err, asked)
	}
	for i, line := range strings.Split(strings.TrimSpace(r.out), "\n") {
		if !strings.HasPrefix(line, "Snapshot ") || !strings.HasSuffix(line, " successfully created.") || i > 1 {
			t.Errorf("line %d: %s", i, line)
		}
	}
	r = s.iscsi("", "snapshot-list -t T1")
	lines := strings.Split(r.out, "\n")
	if r.code != 0 || len(lines) != 4 || !strings.HasPrefix(lines[0], "LUN CREATED ") || !strings.HasPrefix(lines[1], "  0 2014-") || !strings.HasPrefix(lines[2], "  7 2014-") {
		t.Errorf("exit %d\n%s%s", r.code, r.out, r.err)
	}
}

func TestMistakesAboutLUNSnapshotsAreSaid(t *testing.T) {
	s := onHost(t)
	s.play("create -n test1 -a 192.168.10.100", "create -n two -a 192.168.10.102", "lun-add -t two -l 0 -s 1G", "lun-add -t two -l 1 -s 1G")
	s.run("", "create", "demo", "-s", "10G")
	s.run("", "snapshot", "create", "demo", "-u", guideFirst)
	for line, want := range map[string]struct {
		code int
		why  string
	}{
		"snapshot-create -l 1":                     {exitUsage, "-t"},
		"snapshot-create -t none":                  {exitNotFound, "none"},
		"snapshot-create -t T1":                    {exitNotFound, "no LUN"},
		"snapshot-create -t two -l 5":              {exitNotFound, "LUN 5"},
		"snapshot-create -t two -l -2":             {exitUsage, "LUN -2"},
		"snapshot-create -t two -u " + guideSecond: {exitUsage, "2 would be taken"},
		"snapshot-create -t two -l 1 -u x":         {exitUsage, "UUID"},
		"snapshot-list":                            {exitUsage, "-t"},
		"snapshot-list -t T1 -l 1":                 {exitNotFound, "no LUN"},
		"snapshot-info":                            {exitUsage, "-u"},
		"snapshot-info -u x":                       {exitUsage, "UUID"},
		"snapshot-info -u " + guideSecond:          {exitNotFound, "no such snapshot"},
		"snapshot-info -u " + guideFirst:           {exitNotFound, "demo"},
		"snapshot-delete":                          {exitUsage, "-u"},
		"snapshot-delete -u " + guideSecond:        {exitNotFound, "no such snapshot"},
		"snapshot-delete -y -u " + guideFirst:      {exitNotFound, "demo"},
	} {
		if r := s.iscsi("", line); r.code != want.code || !strings.Contains(r.err, want.why) {
			t.Errorf("%s: exit %d, %q; want %d, %q", line, r.code, r.err, want.code, want.why)
		}
	}
}

func TestWhatNobodyHasOpenIsOpenedForTheSnapshot(t *testing.T) {
	s := newSession(t)
	s.run("", "create", "used", "-s", "1G")
	s.run("", "create", "idle", "-s", "1G")
	s.meta.files["/used"].Holder = "someone"
	if r := s.run("", "snapshot", "create", "used", "idle"); r.code != 0 {
		t.Fatalf("exit %d, %s", r.code, r.err)
	}
	if f := s.meta.snaps; !slices.Equal(f.opened, []string{"/idle"}) || len(f.held) != 0 || len(f.all) != 2 {
		t.Errorf("opened %v, still held %v, taken %v", f.opened, f.held, f.all)
	}
	if asked := s.meta.snaps.requests; len(asked) != 2 || !bytes.Equal(asked[0].Ids[0], asked[1].Ids[0]) {
		t.Errorf("asked %v: again, it has to be for the same", asked)
	}
}

// Somebody else opens the volume before the command does, or somebody does each time.
func TestAVolumeThatOthersOpenMeanwhileIsNotFoughtFor(t *testing.T) {
	s := newSession(t)
	s.run("", "create", "demo", "-s", "1G")
	inUse := status.Error(codes.Unavailable, "in use by another client")
	s.meta.snaps.steal = func(path string) error {
		s.meta.files[path].Holder = "someone"
		return inUse
	}
	if r := s.run("", "snapshot", "create", "demo"); r.code != 0 {
		t.Errorf("exit %d, %s", r.code, r.err)
	}
	s.meta.files["/demo"].Holder = ""
	s.meta.snaps.steal = func(string) error { return inUse }
	if r := s.run("", "snapshot", "create", "demo"); r.code != exitUnreachable || len(s.meta.snaps.held) != 0 {
		t.Errorf("exit %d, %s", r.code, r.err)
	}
	s.meta.snaps.steal = func(string) error { return status.Error(codes.NotFound, "/demo: no such file or directory") }
	if r := s.run("", "snapshot", "create", "demo"); r.code != exitNotFound {
		t.Errorf("exit %d, %s", r.code, r.err)
	}
}

func TestSnapshotsThatWereGivenUpSayWhy(t *testing.T) {
	s := newSession(t)
	s.run("", "create", "demo", "-s", "1G")
	s.meta.files["/demo"].Holder = "someone"
	s.meta.err = status.Error(codes.Aborted, "no snapshot was taken: within 5s, writes were not held back by whoever has open: /demo")
	if r := s.run("", "snapshot", "create", "demo"); r.code != exitUnreachable || !strings.Contains(r.err, "has open: /demo; try again") {
		t.Errorf("exit %d, %q", r.code, r.err)
	}
}

func TestDeletingASnapshotAsksFirst(t *testing.T) {
	s := onHost(t)
	s.tty = true
	s.play("create -n test1 -a 192.168.10.100", "lun-add -t T1 -l 3 -s 10G", "snapshot-create -t T1 -u "+guideFirst)
	for line, question := range map[string]string{
		"snapshot delete " + guideFirst:          "Delete iscsi/test1/lun3@" + guideFirst + "? [y/N]",
		"iscsi snapshot-delete -u " + guideFirst: "Delete snapshot " + guideFirst + " of LUN 3 of " + test1 + "? [y/N]",
	} {
		if r := s.run("n\n", strings.Fields(line)...); r.code != exitRefused || !strings.Contains(r.err, question) || len(s.meta.snaps.all) != 1 {
			t.Errorf("%s: exit %d, %q", line, r.code, r.err)
		}
	}
	if r := s.iscsi("y\n", "snapshot-delete -u "+guideFirst); r.code != 0 || len(s.meta.snaps.all) != 0 {
		t.Errorf("exit %d, %q", r.code, r.err)
	}
}

func TestRemovingAVolumeSaysHowManySnapshotsGo(t *testing.T) {
	s := newSession(t)
	s.tty = true
	s.run("", "create", "demo", "-s", "1G")
	s.meta.files["/demo"].Layers = []uint32{1, 4, 5}
	if r := s.run("n\n", "rm", "demo"); !strings.Contains(r.err, "with 2 snapshots") {
		t.Errorf("%q", r.err)
	}
	if r := s.run("", "get-attr", "demo"); !strings.Contains(r.out, "Snapshots: 2\n") {
		t.Errorf("%q", r.out)
	}
}

func TestSnapshotsAreCompleted(t *testing.T) {
	s := newSession(t)
	s.run("", "create", "demo", "-s", "1G")
	s.run("", "snapshot", "create", "demo", "--name", "before")
	s.meta.files["/logs"] = &metapb.FileInfo{Path: "/logs", Directory: true}
	for line, want := range map[string]string{"snapshot create ": "demo\n", "snapshot list ": "demo\n", "snapshot info ": "demo@before\n", "snapshot protect ": "demo@before\n", "snapshot delete ": "demo@before\n"} {
		r := s.run("", append([]string{"__complete"}, strings.Split(line, " ")...)...)
		if got, _, _ := strings.Cut(r.out, ":"); got != want {
			t.Errorf("%s: %q, want %q", line, r.out, want)
		}
	}
}
