package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestTheShortestWayIsPrinted(t *testing.T) {
	var out, errors bytes.Buffer
	if code := run([]string{"-break", "r4COMMIT"}, &out, &errors); code != 1 {
		t.Errorf("code %d", code)
	}
	for _, want := range []string{"VIOLATION after 9 steps", "left out: a write is acknowledged although", "   8  A goes on without server 0\n   9  A acknowledges 1\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
}

func TestWhatIsAskedForIsSaid(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"-writes 1 -crashes 0 -power 0", 0, "no violation; all "},
		{"-writes 1 -crashes 0 -power 0 -break Jstale", 0, ", although this was left out: records of before"},
		{"-states 10", 0, "no violation in the first "},
		{"-break list", 0, "R12prepare   a sweep goes on although"},
		{"-break R99", 2, "there is no rule \"R99\""},
		{"-leases many", 2, "invalid value"},
	} {
		var all bytes.Buffer
		if code := run(strings.Fields(c.args), &all, &all); code != c.code || !strings.Contains(all.String(), c.want) {
			t.Errorf("%s: code %d: %s", c.args, code, &all)
		}
	}
}
