package main

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/metapb"
)

const (
	check   = metapb.RemoveServersRequest_CHECK
	release = metapb.RemoveServersRequest_RELEASE
	cancel  = metapb.RemoveServersRequest_CANCEL
	force   = metapb.RemoveServersRequest_FORCE
)

func serverSession(t *testing.T) *session {
	s := newSession(t)
	s.meta.servers = []*metapb.Server{{Id: 1025, State: metapb.Server_ACTIVE}, {Id: 1026, State: metapb.Server_OFFLINE}}
	return s
}

func TestServersAreReleasedWaitedForAndCancelled(t *testing.T) {
	for line, want := range map[string]struct {
		out  string
		code int
		asks []metapb.RemoveServersRequest_Action
	}{
		"rm-cs 1025":                    {"chunk server 1025 is releasing: 40 chunks to be moved", exitOK, []metapb.RemoveServersRequest_Action{release}},
		"rm-cs --wait 1025 1026":        {"chunk server 1026 is dropped; its folder can be removed", exitOK, []metapb.RemoveServersRequest_Action{release}},
		"rm-cs --cancel 1025":           {"chunk server 1025 stays", exitOK, []metapb.RemoveServersRequest_Action{cancel}},
		"rm-cs -f -y 1026":              {"chunk server 1026 is dropped", exitOK, []metapb.RemoveServersRequest_Action{check, force}},
		"rm-cs -f 1025":                 {"chunk server 1025 is releasing", exitOK, []metapb.RemoveServersRequest_Action{check, force}},
		"rm-cs --json 1025":             {`"lost": 1`, exitOK, []metapb.RemoveServersRequest_Action{release}},
		"rm-cs 7":                       {"no such chunk server: stat shows them", exitNotFound, []metapb.RemoveServersRequest_Action{release}},
		"rm-cs":                         {"ID is missing", exitUsage, nil},
		"rm-cs x":                       {"not the id of a chunk server", exitUsage, nil},
		"rm-cs --cancel -f 1025":        {"--cancel goes with neither", exitUsage, nil},
		"make-cs -r d -t 4":             {"tier=4: must be 0 to 3", exitUsage, nil},
		"make-cs -r d --location 1.2":   {"it is ROOM.ROW.RACK", exitUsage, nil},
		"create v -s 1G --tier 9":       {"tier=9", exitUsage, nil},
		"set-attr / failure-domain=hut": {"must be one of disk, host, rack, row, room", exitUsage, nil},
	} {
		s := serverSession(t)
		r := s.run("", append([]string{"-c", "pcs1"}, strings.Fields(line)...)...)
		if r.code != want.code || !strings.Contains(r.out+r.err, want.out) || !slices.Equal(s.meta.removed, want.asks) {
			t.Errorf("%s: exit %d, asked for %v, printed %s%s", line, r.code, s.meta.removed, r.out, r.err)
		}
	}
}

func TestADeadServerIsDroppedOnlyWhenConfirmed(t *testing.T) {
	for answer, want := range map[string]int{"y\n": exitOK, "n\n": exitRefused, "": exitRefused} {
		s := serverSession(t)
		s.tty = true
		r := s.run(answer, "rm-cs", "-f", "1026")
		if r.code != want || !strings.Contains(r.err, "39 would have too few copies, and 1 none at all: LOST") {
			t.Errorf("answer %q: exit %d, %s", answer, r.code, r.err)
		}
		if dropped := slices.Contains(s.meta.removed, force); dropped != (want == exitOK) {
			t.Errorf("answer %q: dropped %v", answer, dropped)
		}
	}
	s := serverSession(t)
	if r := s.run("", "rm-cs", "-f", "1026"); r.code != exitRefused || slices.Contains(s.meta.removed, force) {
		t.Errorf("without a terminal: exit %d, %s", r.code, r.err)
	}
}

func TestParametersAreSetAndShown(t *testing.T) {
	s := newSession(t)
	if r := s.run("", "set-config", "mds.alloc.fill_margin=2"); r.code != exitOK || !strings.Contains(r.out, "mds.alloc.fill_margin 2") || strings.Contains(r.out, "offline") {
		t.Errorf("exit %d, %s%s", r.code, r.out, r.err)
	}
	if r := s.run("", "get-config", "--json"); r.code != exitOK || !strings.Contains(r.out, `"mds.wd.offline_tout": "5min"`) {
		t.Errorf("exit %d, %s%s", r.code, r.out, r.err)
	}
	for _, wrong := range []string{"set-config", "set-config x", "set-config x=1"} {
		if r := s.run("", strings.Fields(wrong)...); r.code != exitUsage {
			t.Errorf("%s: exit %d, want %d: %s", wrong, r.code, exitUsage, r.err)
		}
	}
}

func TestARemovalThatIsRefusedSaysWhy(t *testing.T) {
	s := serverSession(t)
	s.meta.err = status.Error(codes.FailedPrecondition, "what would be left of the cluster cannot hold everything: /v wants 3 replicas")
	if r := s.run("", "rm-cs", "1025"); r.code != exitRefused || !strings.Contains(r.err, "/v wants 3 replicas") {
		t.Errorf("exit %d, %s", r.code, r.err)
	}
}
