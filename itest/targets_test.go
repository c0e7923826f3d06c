package itest

import (
	"bytes"
	encoding "encoding/binary"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"pstorage/itest/cluster"
	initiator "pstorage/itest/iscsi"
	"pstorage/itest/ports"
)

// iscsiHost is a host that targets are registered on: a root of its own, and its target daemon.
type iscsiHost struct {
	t       *testing.T
	root    string
	mds     string
	daemon  *cluster.Process
	machine string // its identity, empty: the name of this machine
}

// run runs a command of pstorage-iscsi there.
func (h *iscsiHost) run(input string, args ...string) answer {
	h.t.Helper()
	command := exec.CommandContext(newContext(h.t), binary, append([]string{"-b", h.mds, "--timeout", "60s", "iscsi"}, args...)...)
	command.Env = append(os.Environ(), "PSTORAGE_ROOT="+h.root)
	command.Stdin = strings.NewReader(input)
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	return answer{command.ProcessState.ExitCode(), out.String(), errs.String()}
}

// must runs a command that has to work, and returns what it printed.
func (h *iscsiHost) must(args ...string) string {
	h.t.Helper()
	a := h.run("", args...)
	if a.code != 0 {
		h.t.Fatalf("pstorage iscsi %s: exit %d: %s", strings.Join(args, " "), a.code, a.err)
	}
	return a.out
}

// until runs a command again until it says something.
func (h *iscsiHost) until(want string, args ...string) {
	h.t.Helper()
	for limit := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		a := h.run("", args...)
		if strings.Contains(a.out, want) {
			return
		}
		if time.Now().After(limit) {
			h.t.Fatalf("pstorage iscsi %s never said %q: %s%s", strings.Join(args, " "), want, a.out, a.err)
		}
	}
}

// start starts a target, and waits for it longer than a person would: the machine may be busy with other tests.
func (h *iscsiHost) start(name string) {
	h.t.Helper()
	if a := h.run("", "start", "-t", name, "--wait", "0"); a.code != 0 {
		h.t.Fatal(a.err)
	}
	h.until("Status:      running\n", "list", "-t", name)
}

// stop stops it although initiators are connected.
func (h *iscsiHost) stop(name string) {
	h.t.Helper()
	h.must("stop", "-t", name, "-f", "--wait", "100s")
}

// secondHost is another host of the cluster.
func secondHost(t *testing.T, c *cluster.Cluster, mds string) *iscsiHost {
	t.Helper()
	h := &iscsiHost{t: t, root: t.TempDir(), mds: mds, machine: "fefacc38a2f140ca"}
	file := filepath.Join(h.root, "etc/pstorage/host_id")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(h.machine+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var err error
	h.daemon, err = cluster.Start(newContext(t), "targetd2", filepath.Join(c.Dir, "targetd2.log"), []string{"PSTORAGE_ROOT=" + h.root},
		binary, "-c", cluster.Name, "-b", mds, "targetd", "--nbd", "", "--iscsi", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !h.daemon.Ended() {
			if _, err := h.daemon.Stop(); err != nil {
				t.Error(err)
			}
		}
	})
	return h
}

// portal is an address for a target of a test.
func portal(t *testing.T, ip string) string {
	t.Helper()
	port, err := ports.Free()
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(ip, strconv.Itoa(port))
}

const (
	iqnMoved  = "iqn.2014-04.com.pstorage:moved"
	otherName = "iqn.2014-04.com.example:other"
)

// registeredTarget is the target that the test is about, and what its initiators do.
type registeredTarget struct {
	t       *testing.T
	address string
}

// try logs an initiator in with the target's account.
func (r *registeredTarget) try(name string) (*initiator.Session, error) {
	r.t.Helper()
	s, err := initiator.Login(newContext(r.t), r.address, initiator.Options{Initiator: name, Target: iqnMoved, User: "host", Secret: hostSecret, TargetUser: "us", TargetPass: ourSecret})
	if err == nil {
		r.t.Cleanup(func() { _ = s.Close() })
	}
	return s, err
}

// login does it as soon as the target lets it in.
func (r *registeredTarget) login(name string) *initiator.Session {
	r.t.Helper()
	for limit := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		s, err := r.try(name)
		if err == nil {
			return s
		}
		if time.Now().After(limit) {
			r.t.Fatal(err)
		}
	}
}

// patient does a command again while the LUN answers BUSY: its volume is still being taken over.
func patient(t *testing.T, s *initiator.Session, cdb, out []byte, room int) ([]byte, error) {
	t.Helper()
	for limit := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		data, err := s.Do(1, cdb, out, room)
		if err == nil || !strings.Contains(err.Error(), "status 08") || time.Now().After(limit) {
			return data, err
		}
	}
}

// holds looks whether the reservation and the data are what they were: the holder reads its data, another initiator conflicts.
func (r *registeredTarget) holds(data []byte) {
	r.t.Helper()
	if got, err := patient(r.t, r.login(hostName), initiator.Read16(9, 1), nil, 512); err != nil || !bytes.Equal(got, data) {
		r.t.Errorf("the holder of the reservation: %v, the data: %v", err, bytes.Equal(got, data))
	}
	if _, err := patient(r.t, r.login(otherName), initiator.Read16(9, 1), nil, 512); err == nil || !strings.Contains(err.Error(), "status 18") {
		r.t.Errorf("another initiator: %v; no reservation conflict", err)
	}
}

// discovered is what a discovery session is shown.
func discovered(t *testing.T, address string, o initiator.Options) string {
	t.Helper()
	o.Initiator = hostName
	s, err := initiator.Login(newContext(t), address, o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	text, err := s.Targets()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// capacity is the number of bytes that READ CAPACITY tells.
func capacity(t *testing.T, s *initiator.Session) uint64 {
	t.Helper()
	b, err := patient(t, s, append([]byte{0x9e, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 32}, 0, 0), nil, 32)
	if err != nil {
		t.Fatal(err)
	}
	return (encoding.BigEndian.Uint64(b) + 1) * uint64(encoding.BigEndian.Uint32(b[8:]))
}

// registerTarget makes a cluster, its accounts, and the target "moved" without LUNs, stopped, of the host that it returns.
func registerTarget(t *testing.T) (*cluster.Cluster, *iscsiHost, *registeredTarget) {
	t.Helper()
	c := newCluster(t, cluster.Options{Servers: 1})
	states, err := c.MDSStates(newContext(t))
	if err != nil {
		t.Fatal(err)
	}
	here := &iscsiHost{t: t, root: c.Dir, mds: states[0].Address, daemon: c.Targets}
	r := &registeredTarget{t, portal(t, "127.0.0.7")}
	for user, secret := range map[string]string{"host": hostSecret, "us": ourSecret} {
		if a := here.run(secret+"\n", "account-create", "-u", user); a.code != 0 {
			t.Fatal(a.err)
		}
	}
	if out := here.must("create", "-n", "moved", "-a", r.address, "-u", "host", "-m", "us"); out != "IQN: "+iqnMoved+"\n" {
		t.Fatalf("create said %q", out)
	}
	return c, here, r
}

func TestRegisteredTargetLivesThroughItsHosts(t *testing.T) {
	c, here, r := registerTarget(t)
	here.must("lun-add", "-t", iqnMoved, "-l", "1", "-s", "64M")
	if _, err := r.try(hostName); err == nil {
		t.Error("logged in to a target that is stopped")
	}
	here.start(iqnMoved)

	chap := initiator.Options{User: "host", Secret: hostSecret, TargetUser: "us", TargetPass: ourSecret}
	volumes := strings.TrimSuffix(strings.TrimPrefix(c.Targets.Way("iscsi://"), "iscsi://"), "/")
	for _, x := range []struct {
		at    string
		o     initiator.Options
		shown bool
	}{{r.address, chap, true}, {volumes, initiator.Options{}, false}} {
		if text := discovered(t, x.at, x.o); strings.Contains(text, iqnMoved) != x.shown {
			t.Errorf("at %s as %q: shown %q", x.at, x.o.User, text)
		}
	}
	if text := discovered(t, r.address, initiator.Options{}); strings.Contains(text, iqnMoved) {
		t.Errorf("a stranger is shown %q", text)
	}

	s := r.login(hostName)
	data := bytes.Repeat([]byte{7}, 512)
	if _, err := patient(t, s, initiator.Write16(9, 1), data, 0); err != nil {
		t.Fatal(err)
	}
	here.must("lun-grow", "-t", iqnMoved, "-l", "1", "-s", "128M")
	for limit := time.Now().Add(time.Minute); capacity(t, s) != 128*mib; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatalf("%d bytes after the LUN has grown", capacity(t, s))
		}
	}
	for _, step := range [][2]byte{{6, 0}, {1, 3}} { // register, with APTPL; reserve: exclusive access
		key, service := uint64(0), uint64(0xabc)
		if step[0] == 1 {
			key, service = service, 0
		}
		cdb, list := initiator.Reserve(step[0], step[1], key, service, step[0] == 6)
		if _, err := patient(t, s, cdb, list, 0); err != nil {
			t.Fatal(err)
		}
	}

	here.until(hostName, "sessions", "-t", iqnMoved)
	a := here.run("", "stop", "-t", iqnMoved)
	for limit := time.Now().Add(time.Minute); strings.Contains(a.err, "not heard from") && time.Now().Before(limit); { // a host that is very busy
		a = here.run("", "stop", "-t", iqnMoved)
	}
	want := "initiators still connected\n Initiator:   " + hostName + " (127.0.0.1)\nUnable stop target " + iqnMoved + "\n"
	if a.code != 5 || a.err != want {
		t.Errorf("stop while an initiator is connected: exit %d, %q", a.code, a.err)
	}

	c.Targets.Kill()
	if err := c.StartTargets(newContext(t)); err != nil {
		t.Fatal(err)
	}
	r.holds(data)
	here.stop(iqnMoved)
	if _, err := r.try(hostName); err == nil {
		t.Error("logged in to a target that was stopped")
	}

	there := secondHost(t, c, here.mds)
	if a := there.run("", "start", "-t", iqnMoved); a.code != 5 {
		t.Errorf("start on another host than the target's: exit %d, %q", a.code, a.err)
	}
	here.must("unregister", "-t", iqnMoved)
	there.must("register", "-t", iqnMoved)
	there.start(iqnMoved)
	if out := here.must("list"); !strings.Contains(out, iqnMoved+"  remote 1    "+there.machine) {
		t.Errorf("on the other host: %s", out)
	}
	r.holds(data)
	there.stop(iqnMoved)
	if a := here.run("", "delete", "-t", iqnMoved, "--yes"); a.code != 5 {
		t.Errorf("delete of a target of another host: exit %d, %q", a.code, a.err)
	}
	here.must("delete", "-t", iqnMoved, "--force")
	if out := here.must("list", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("after the deletion: %s", out)
	}
}

func TestISCSIToolsUseRegisteredTargets(t *testing.T) {
	need(t, "iscsi-ls", "qemu-img", "qemu-io")
	u := newUp(t)
	address := portal(t, "127.0.0.8")
	h := &iscsiHost{t: t, root: os.Getenv("PSTORAGE_ROOT"), mds: u.MDS()}
	h.must("create", "-n", "tools", "-a", address)
	h.must("lun-add", "-t", "tools", "-l", "3", "-s", "64M")
	h.start("tools")
	out, err := exec.CommandContext(newContext(t), "iscsi-ls", "-s", "iscsi://"+address).CombinedOutput()
	if text := string(out); err != nil || !strings.Contains(text, "pstorage:tools Portal:"+address) || !strings.Contains(text, "Lun:3") {
		t.Errorf("iscsi-ls: %v\n%s", err, text)
	}
	url := "iscsi://" + address + "/iqn.2014-04.com.pstorage:tools/3"
	for _, line := range [][]string{
		{"qemu-io", "-f", "raw", "-c", "write -P 7 1M 64k", "-c", "flush", url}, {"qemu-io", "-f", "raw", "-c", "read -P 7 1M 64k", url}, {"qemu-img", "info", url},
	} {
		if out, err := exec.CommandContext(newContext(t), line[0], line[1:]...).CombinedOutput(); err != nil || strings.Contains(string(out), "verification failed") {
			t.Errorf("%q: %v\n%s", line, err, out)
		}
	}
	h.stop("tools")
	h.must("delete", "-t", "tools", "--yes")
}
