package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/targetpb"
)

const (
	guideHost = "fefacc38a2f140ca"
	test1     = "iqn.2014-04.com.pstorage:test1"
)

// moveTo makes the session one on another host.
func (s *session) moveTo(host string) {
	s.t.Helper()
	file := filepath.Join(s.root, "etc/pstorage/host_id")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(host+"\n"), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

// onHost is a session on the host of the administrator's guide.
func onHost(t *testing.T) *session {
	s := newSession(t)
	s.moveTo(guideHost)
	return s
}

// iscsi runs a command line of pstorage-iscsi.
func (s *session) iscsi(input, line string) result {
	s.t.Helper()
	return s.run(input, append([]string{"iscsi"}, strings.Fields(strings.ReplaceAll(line, "T1", test1))...)...)
}

// play runs command lines that have to succeed.
func (s *session) play(lines ...string) {
	s.t.Helper()
	for _, line := range lines {
		if r := s.iscsi("", line); r.code != 0 {
			s.t.Fatalf("%s: exit %d, %s", line, r.code, r.err)
		}
	}
}

func TestISCSIAnswersAreThoseOfTheGuide(t *testing.T) {
	s := onHost(t)
	s.tty = true
	s.targets.accounts["user1"] = []byte("secret-of-user1")
	for _, step := range []struct{ input, line, out, err string }{
		{"", "create -n test1 -a 192.168.10.100", "IQN: iqn.2014-04.com.pstorage:test1\n", ""},
		{"", "lun-add -t T1 -l 1 -s 100G", "", ""},
		{"", "start -t T1", "", ""},
		{"", "list -t T1", `Target iqn.2014-04.com.pstorage:test1:
 Portals:     192.168.10.100
 Status:      running
 Registered:  yes
 Host:        fefacc38a2f140ca
 LUN:   1, Size:  102400M, Used:     1M, Online: Yes
`, ""},
		{"", "create -n test2 -a 192.168.10.101", "IQN: iqn.2014-04.com.pstorage:test2\n", ""},
		{"", "lun-add -t iqn.2014-04.com.pstorage:test2 -l 1 -s 10G", "", ""},
		{"", "start -t iqn.2014-04.com.pstorage:test2", "", ""},
		{"", "create -n test3 -a 192.168.10.102", "IQN: iqn.2014-04.com.pstorage:test3\n", ""},
		{"", "lun-add -t test3 -l 7 -s 16T", "", ""},
		{"", "create -n test4 -a 192.168.10.103 -u user1", "IQN: iqn.2014-04.com.pstorage:test4\n", ""},
		{"", "list", `IQN                             STATUS  LUNs HOST             PORTAL(s)
iqn.2014-04.com.pstorage:test1  running 1    fefacc38a2f140ca 192.168.10.100
iqn.2014-04.com.pstorage:test2  running 1    fefacc38a2f140ca 192.168.10.101
iqn.2014-04.com.pstorage:test3  stopped 1    fefacc38a2f140ca 192.168.10.102
iqn.2014-04.com.pstorage:test4  stopped 0    fefacc38a2f140ca 192.168.10.103
`, ""},
		{"", "account-list", "user1\n", ""},
		{"", "account-list -u user1", "iqn.2014-04.com.pstorage:test4\n", ""},
		{"secret-of-user2\nsecret-of-user2", "account-create -u user2", "", "Enter password: \nVerify password: \n"},
		{"another-secret-2\nanother-secret-2", "account-set -u user2", "", "Enter password: \nVerify password: \n"},
		{"", "create -n ps1 -a 192.168.10.201 -a 192.168.20.201", "IQN: iqn.2014-04.com.pstorage:ps1\n", ""},
		{"", "set -t T1 -a 192.168.10.110", "", "pstorage iscsi set: target iqn.2014-04.com.pstorage:test1 is started: stop it first\n"},
		{"", "stop -t T1", "", ""},
		{"", "set -t T1 -a 192.168.10.110", "", ""},
		{"", "lun-grow -t T1 -l 1 -s 200G", "", ""},
		{"", "unregister -t T1", "", ""},
		{"", "list -t T1", `Target iqn.2014-04.com.pstorage:test1:
 Portals:     192.168.10.110
 Status:      unregistered
 Registered:  no
 Host:        -
 LUN:   1, Size:  204800M, Used:     1M, Online: No
`, ""},
		{"", "register -t T1", "", ""},
		{"y\n", "delete -t T1", "", "Delete target iqn.2014-04.com.pstorage:test1 with LUN 1 (200GB, 1MB used) and all their data? [y/N] "},
	} {
		r := s.iscsi(step.input, step.line)
		if r.out != step.out || r.err != step.err || (r.code == exitOK) == strings.Contains(step.err, "stop it first") {
			t.Errorf("pstorage-iscsi %s: exit %d\n%s%swant\n%s%s", step.line, r.code, r.out, r.err, step.out, step.err)
		}
	}
	if string(s.targets.accounts["user2"]) != "another-secret-2" {
		t.Errorf("secret %q", s.targets.accounts["user2"])
	}
}

func TestStopSaysWhoIsStillConnected(t *testing.T) { synctest.Test(t, stopWhileConnected) }

func stopWhileConnected(t *testing.T) {
	s := onHost(t)
	s.play("create -n test1 -a 192.168.10.100", "start -t T1")
	s.targets.targets[0].Sessions = []*targetpb.Session{{Initiator: "iqn.1994-05.com.redhat:c678b9f6f0", Address: "192.168.30.100:40123"}}
	r := s.iscsi("", "stop -t T1")
	want := `initiators still connected
 Initiator:   iqn.1994-05.com.redhat:c678b9f6f0 (192.168.30.100)
Unable stop target iqn.2014-04.com.pstorage:test1
`
	if r.code != exitRefused || r.err != want || r.out != "" {
		t.Errorf("exit %d, %q, %q", r.code, r.out, r.err)
	}
	if r := s.iscsi("", "stop -t T1 --json"); r.code != exitRefused || !strings.Contains(r.out, `"initiator": "iqn.1994-05.com.redhat:c678b9f6f0"`) || r.err != "" {
		t.Errorf("JSON: exit %d, %q, %q", r.code, r.out, r.err)
	}
	s.play("stop -t T1 -f", "list -t T1")
	if s.targets.targets[0].Enabled {
		t.Error("not stopped by force")
	}
}

func TestStopDoesNotMindWhoHasJustLoggedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := onHost(t)
		s.play("create -n test1 -a 192.168.10.100", "start -t T1")
		x := s.targets.targets[0]
		x.Sessions = []*targetpb.Session{{Initiator: "iqn.x:host", Address: "192.168.30.100:40123"}}
		began := time.Now()
		if r := s.iscsi("", "stop -t T1"); r.code != exitRefused || time.Since(began) < logoutTime || time.Since(began) > logoutTime+time.Second {
			t.Errorf("exit %d after %v", r.code, time.Since(began))
		}
		s.targets.refused = func() { x.Sessions = nil }
		if r := s.iscsi("", "stop -t T1"); r.code != exitOK || x.Enabled {
			t.Errorf("exit %d, %q", r.code, r.err)
		}
	})
}

func TestISCSITargetsInTheTerminal(t *testing.T) {
	s := onHost(t)
	s.targets.accounts["user1"], s.targets.accounts["ours"] = []byte("secret-of-user1"), []byte("secret-of-ours")
	var transcript strings.Builder
	script := func(lines ...string) {
		for _, line := range lines {
			r := s.iscsi("", line)
			r.record(&transcript, "pstorage-iscsi "+line)
		}
	}
	script("create -n ps1 -a 192.168.10.101 -a 192.168.20.101:860,2 -u user1 -m ours -i iqn.1994-05.com.redhat:a -i iqn.1994-05.com.redhat:b --comment database",
		"lun-add -t ps1 -l 0 -s 1000M --block-size 4096 --read-only", "lun-add -t ps1 -l 255 -s 16T", "list -t ps1", "list -t ps1 --json", "start -t ps1 --json")
	x := s.targets.targets[0]
	x.Status, x.Failure = targetpb.Target_FAILED, "address 192.168.10.101 is not on this host"
	x.Sessions = []*targetpb.Session{{Initiator: "iqn.1994-05.com.redhat:a", Address: "192.168.30.100:40123", SinceUnix: 1397222211, Account: "user1", Portal: "192.168.20.101:860", Isid: []byte{0, 2, 0x3d, 1, 0, 0}}}
	script("list -t ps1", "sessions -t ps1", "sessions -t ps1 --json", "lun-del -t ps1 -l 0", "lun-del -t ps1 -l 0 --yes", "lun-del -t ps1 -l 0 --force", "set -t ps1 -i x",
		"account-list --json", "account-delete -u user1", "delete -t ps1", "delete -t ps1 --yes")
	s.moveTo("other")
	script("list", "list -t ps1", "start -t ps1", "unregister -t ps1", "register -t ps1")
	x.Enabled, x.Sessions, x.Failure = false, nil, ""
	script("unregister -t ps1 --force", "register -t ps1", "set -t ps1 --user= --mutual= --initiator= --comment none", "list -t ps1", "delete -t ps1 --force", "list", "list --json")
	golden(t, "iscsi.txt", transcript.String())
}

func TestISCSIMistakesAreSaid(t *testing.T) {
	s := onHost(t)
	s.play("create -n test1 -a 192.168.10.100")
	for line, want := range map[string]struct {
		code int
		why  string
	}{
		"frobnicate":                          {exitUsage, "no command"},
		"create -a 192.168.10.1":              {exitUsage, "-n NAME"},
		"create -n a":                         {exitUsage, "-a IP"},
		"create -n a -a somewhere":            {exitUsage, "IP address"},
		"create -n a -a 10.0.0.1:70000":       {exitUsage, "port"},
		"create -n a -a 10.0.0.1,0":           {exitUsage, "group"},
		"create -n a -a 10.0.0.1 -u nobody":   {exitUsage, "nobody"},
		"create -n test1 -a 10.0.0.1":         {exitRefused, "exists"},
		"lun-add -l 1 -s 1G":                  {exitUsage, "-t"},
		"lun-add -t T1 -s 1G":                 {exitUsage, "-l"},
		"lun-add -t T1 -l -3 -s 1G":           {exitUsage, "-l"},
		"lun-add -t T1 -l 1":                  {exitUsage, "-s"},
		"lun-add -t T1 -l 1 -s 1000":          {exitUsage, "multiple"},
		"lun-add -t T1 -l 1 -s 1G --tier 9":   {exitUsage, "tier"},
		"lun-grow -t none -l 1 -s 1G":         {exitNotFound, "none"},
		"set -t T1":                           {exitUsage, "what is to be changed"},
		"set -t none -a 10.0.0.1":             {exitNotFound, "none"},
		"delete":                              {exitUsage, "-t"},
		"delete -t none":                      {exitNotFound, "no target"},
		"list -t none":                        {exitNotFound, "no target"},
		"list T1":                             {exitUsage, "unexpected"},
		"sessions":                            {exitUsage, "-t"},
		"start":                               {exitUsage, "-t"},
		"stop -t none":                        {exitNotFound, "none"},
		"account-create":                      {exitUsage, "-u"},
		"account-create -u short":             {exitUsage, "12 to 255"},
		"account-list -u nobody":              {exitNotFound, "nobody"},
		"account-set -u nobody":               {exitUsage, "12 to 255"},
		"account-delete":                      {exitUsage, "-u"},
		"create -n a -a 10.0.0.1 -u nobody x": {exitUsage, "unexpected"},
	} {
		if r := s.iscsi("", line); r.code != want.code || !strings.Contains(r.err, want.why) || r.out != "" {
			t.Errorf("%s: exit %d, %q; want %d, %q", line, r.code, r.err, want.code, want.why)
		}
	}
	s.targets.err = status.Error(codes.Unavailable, "no leader")
	if r := s.iscsi("", "list"); r.code != exitUnreachable {
		t.Errorf("no leader: exit %d", r.code)
	}
	s.targets.err = status.Error(codes.Unimplemented, "unknown service")
	if r := s.iscsi("", "list"); r.code != exitFailure || !strings.Contains(r.err, "version") {
		t.Errorf("old servers: exit %d, %q", r.code, r.err)
	}
}

func TestPasswordsAreNoArguments(t *testing.T) {
	s := onHost(t)
	if r := s.iscsi("secret-of-user1\nmore", "account-create -u user1"); r.code != 0 || r.err != "" || string(s.targets.accounts["user1"]) != "secret-of-user1" {
		t.Errorf("from standard input: exit %d, %q, %q", r.code, r.err, s.targets.accounts)
	}
	if r := s.iscsi(strings.Repeat("x", maxSecret+1), "account-create -u user2"); r.code != exitUsage || s.targets.accounts["user2"] != nil {
		t.Errorf("too long: exit %d, %q", r.code, r.err)
	}
	s.tty = true
	if r := s.iscsi("secret-of-user1\nsecret-of-user2", "account-set -u user1"); r.code != exitUsage || !strings.Contains(r.err, "differ") {
		t.Errorf("typed differently: exit %d, %q", r.code, r.err)
	}
}

func TestStartWaitsUntilTheTargetIsServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := onHost(t)
		s.play("create -n test1 -a 192.168.10.100")
		since := time.Now()
		after := 3 * time.Second
		become := targetpb.Target_RUNNING
		s.targets.serve = func(x *targetpb.Target) {
			if time.Since(since) >= after {
				x.Status = become
			}
		}
		run := func(line string) (result, time.Duration) {
			since = time.Now()
			r := s.iscsi("", line)
			return r, time.Since(since)
		}
		if r, took := run("start -t T1"); r.code != 0 || took < after || took > after+time.Second {
			t.Errorf("start: exit %d after %v, %q", r.code, took, r.err)
		}
		become = targetpb.Target_STOPPED
		if r, took := run("stop -t T1"); r.code != 0 || took < after {
			t.Errorf("stop: exit %d after %v, %q", r.code, took, r.err)
		}
		if r, took := run("start -t T1 --wait 0"); r.code != 0 || took > 0 {
			t.Errorf("start without waiting: exit %d after %v, %q", r.code, took, r.err)
		}
		after = time.Hour
		if r, took := run("start -t T1"); r.code != exitUnreachable || took < targetWait || !strings.Contains(r.err, "targetd") {
			t.Errorf("nobody serves: exit %d after %v, %q", r.code, took, r.err)
		}
		if r, took := run("stop -t T1 --wait 2s"); r.code != exitUnreachable || took < 2*time.Second || took > 3*time.Second {
			t.Errorf("does not stop: exit %d after %v, %q", r.code, took, r.err)
		}
		after, become = 0, targetpb.Target_FAILED
		s.targets.targets[0].Failure = "address 192.168.10.100 is not on this host"
		if r, took := run("start -t T1"); r.code != exitUnreachable || took < failureTime || took > failureTime+time.Second || !strings.Contains(r.err, "not on this host") {
			t.Errorf("failed: exit %d after %v, %q", r.code, took, r.err)
		}
	})
}

func TestNamesOfTargetsAndAccountsAreCompleted(t *testing.T) {
	s := onHost(t)
	s.targets.accounts["user1"] = []byte("secret-of-user1")
	s.play("create -n test1 -a 192.168.10.100")
	for _, c := range [][2]string{{"list -t ", test1}, {"start -t ", test1}, {"account-set -u ", "user1"}, {"create -n x -u ", "user1"}, {"set -m ", "user1"}} {
		r := s.run("", append(append([]string{"__complete", "iscsi"}, strings.Fields(c[0])...), "")...)
		if !strings.HasPrefix(r.out, c[1]+"\n") {
			t.Errorf("%s: %q", c[0], r.out)
		}
	}
}

func TestPstorageISCSIIsANameOfTheProgram(t *testing.T) {
	if got := arguments([]string{"/usr/bin/pstorage-iscsi", "list", "-t", "x"}); strings.Join(got, " ") != "iscsi list -t x" {
		t.Errorf("%q", got)
	}
}
