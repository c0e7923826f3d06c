package itest

import (
	"strings"
	"testing"
)

// A disk that is being overwritten for minutes: killing the daemon that does it, and moving the target to another host, lets nobody at the data.
func TestSanitizeGoesOnWhereverTheTargetIs(t *testing.T) {
	c, here, r := registerTarget(t)
	here.must("lun-add", "-t", iqnMoved, "-l", "1", "-s", "2G")
	here.start(iqnMoved)
	overwrite := []byte{0x48, 0x80 | 1, 0, 0, 0, 0, 0, 0, 5, 0} // immediate
	if _, err := patient(t, r.login(hostName), overwrite, []byte{31, 0, 0, 1, 7}, 0); err != nil {
		t.Fatal(err)
	}
	r.sanitizing("at once")

	c.Targets.Kill()
	if err := c.StartTargets(newContext(t)); err != nil {
		t.Fatal(err)
	}
	r.sanitizing("after the daemon was killed")
	here.stop(iqnMoved)

	there := secondHost(t, c, here.mds)
	here.must("unregister", "-t", iqnMoved)
	there.must("register", "-t", iqnMoved)
	there.start(iqnMoved)
	r.sanitizing("on the other host")
	there.stop(iqnMoved)
	there.must("delete", "-t", iqnMoved, "--yes")
}

// sanitizing looks whether the target's disk says that it is being sanitized.
func (r *registeredTarget) sanitizing(when string) {
	r.t.Helper()
	if _, err := patient(r.t, r.login(otherName), make([]byte, 6), nil, 0); err == nil || !strings.Contains(err.Error(), "04 1b") {
		r.t.Errorf("%s: TEST UNIT READY says %v", when, err)
	}
}
