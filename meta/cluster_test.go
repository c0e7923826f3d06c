package meta

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/itest/ports"
	"pstorage/meta/client"
	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
)

// servers is a cluster of metadata servers on TCP ports of their own, which are started and stopped at will.
type servers struct {
	t        *testing.T
	password string
	dirs     []string
	address  []string
	running  []*Server // nil: stopped
	level    uint64    // of those that are started next
}

// found makes a cluster of so many servers, all of which vote. Without a password: comparing those takes its time.
func found(t *testing.T, count int) *servers {
	t.Helper()
	return foundWith(t, "", count)
}

func foundWith(t *testing.T, password string, count int) *servers {
	t.Helper()
	t.Parallel() // most of their time is waiting
	c := &servers{t: t, password: password}
	c.place()
	if err := Create(c.dirs[0], CreateOptions{Cluster: "pcs1", Password: password, Address: c.address[0]}); err != nil {
		t.Fatal(err)
	}
	c.start(0)
	for i := 1; i < count; i++ {
		c.join()
	}
	t.Cleanup(func() {
		for i := range c.running {
			c.stop(i)
		}
	})
	return c
}

// place makes room for one more.
func (c *servers) place() int {
	c.dirs = append(c.dirs, filepath.Join(c.t.TempDir(), "mds"))
	address, err := ports.FreePair()
	if err != nil {
		c.t.Fatal(err)
	}
	c.address = append(c.address, address)
	c.running = append(c.running, nil)
	return len(c.dirs) - 1
}

func (c *servers) start(i int) *Server {
	c.t.Helper()
	s, err := Start(within(c.t), Config{Dir: c.dirs[i], Level: c.level})
	if err != nil {
		c.t.Fatal(err)
	}
	c.running[i] = s
	return s
}

func (c *servers) stop(i int) {
	c.t.Helper()
	if s := c.running[i]; s != nil {
		c.running[i] = nil
		if err := s.Close(); err != nil && !errors.Is(err, fsm.ErrRemoved) {
			c.t.Error(err)
		}
	}
}

// up are those that run.
func (c *servers) up() []*Server {
	return slices.DeleteFunc(slices.Clone(c.running), func(s *Server) bool { return s == nil })
}

// addresses are the client addresses of those that run.
func (c *servers) addresses() (out []string) {
	for _, s := range c.up() {
		out = append(out, s.ClientAddr())
	}
	return out
}

func (c *servers) client() *client.Client { return dial(c.t, c.addresses()...) }

func (c *servers) makeJoined(i int) error {
	_, err := Join(within(c.t), c.dirs[i], JoinOptions{Cluster: "pcs1", Password: c.password, Address: c.address[i], MDS: c.addresses()})
	return err
}

// join makes one more, starts it and waits until it votes.
func (c *servers) join() int {
	c.t.Helper()
	i := c.place()
	if err := c.makeJoined(i); err != nil {
		c.t.Fatal(err)
	}
	c.start(i)
	c.awaitVoters(len(c.up()))
	return i
}

func (c *servers) awaitVoters(count int) {
	c.t.Helper()
	await(c.t, fmt.Sprintf("%d servers vote", count), func() bool {
		for _, s := range c.up() {
			if s.node.voters() != count {
				return false
			}
		}
		return true
	})
}

// leader returns the place of the one that leads.
func (c *servers) leader() int {
	c.t.Helper()
	return slices.Index(c.running, leads(c.t, c.up()...))
}

func (c *servers) create(path string) {
	c.t.Helper()
	if _, err := c.client().Create(within(c.t), &metapb.CreateRequest{Path: path, Size: 1 << 30}); err != nil {
		c.t.Fatalf("%s: %v", path, err)
	}
}

// has waits until a server's own state has a file.
func (c *servers) has(i int, path string) {
	c.t.Helper()
	await(c.t, fmt.Sprintf("server %d has %s", i+1, path), func() bool {
		err := c.running[i].node.machine.View(func(v *fsm.View) error { _, err := v.Lookup(path); return err })
		return err == nil
	})
}

func TestOnlyWhoKnowsThePasswordJoins(t *testing.T) {
	c := foundWith(t, "secret", 1)
	i := c.place()
	join := func(change func(*JoinOptions)) error {
		o := JoinOptions{Cluster: "pcs1", Password: "secret", Address: c.address[i], MDS: c.addresses()}
		change(&o)
		_, err := Join(within(t), c.dirs[i], o)
		return err
	}
	for name, x := range map[string]struct {
		change func(*JoinOptions)
		code   codes.Code
	}{
		"wrong password":  {func(o *JoinOptions) { o.Password = "Secret" }, codes.PermissionDenied},
		"no password":     {func(o *JoinOptions) { o.Password = "" }, codes.PermissionDenied},
		"another cluster": {func(o *JoinOptions) { o.Cluster = "pcs2" }, codes.InvalidArgument},
		"taken address":   {func(o *JoinOptions) { o.Address = c.address[0] }, codes.AlreadyExists},
	} {
		if err := join(x.change); status.Code(err) != x.code {
			t.Errorf("%s: %v, want %v", name, err, x.code)
		}
	}
	if err := join(func(o *JoinOptions) { o.Address = "127.0.0.1" }); err == nil {
		t.Error("an address without a port was taken")
	}
	if _, err := Start(within(t), Config{Dir: c.dirs[i]}); !errors.Is(err, ErrNoServer) {
		t.Errorf("the folder after refused joins: %v, want ErrNoServer", err)
	}
	if err := join(func(*JoinOptions) {}); err != nil {
		t.Fatal(err)
	}
	if err := join(func(*JoinOptions) {}); !errors.Is(err, ErrNotEmpty) {
		t.Errorf("into a folder that holds a server: %v, want ErrNotEmpty", err)
	}
}

func TestTwoJoinsAtOnce(t *testing.T) {
	c := found(t, 1)
	joined := make(chan error)
	for range 2 {
		i := c.place()
		go func() { joined <- c.makeJoined(i) }()
	}
	if err := errors.Join(<-joined, <-joined); err != nil {
		t.Fatal(err)
	}
	c.start(1)
	c.start(2)
	c.awaitVoters(3)
	c.create("/f")
	for i := range 3 {
		c.has(i, "/f")
	}
}

func TestAServerThatWasMadeAndNeverStartedDisturbsNobody(t *testing.T) {
	c := found(t, 1)
	i := c.place()
	if err := c.makeJoined(i); err != nil {
		t.Fatal(err)
	}
	c.create("/f")
	if c.running[0].node.voters() != 1 {
		t.Error("it has a vote")
	}
	// Its folder is lost; it is made again, with the same address.
	c.dirs[i] = filepath.Join(t.TempDir(), "again")
	if err := c.makeJoined(i); err != nil {
		t.Fatal(err)
	}
	c.start(i)
	c.awaitVoters(2)
}

func TestServersComeBackInAnyOrder(t *testing.T) {
	c := found(t, 3)
	for round, order := range [][]int{{2, 0, 1}, {1, 2, 0}, {0, 1, 2}} {
		c.create(fmt.Sprint("/f", round))
		for _, i := range order {
			c.stop(i)
		}
		for _, i := range slices.Backward(order) {
			c.start(i)
		}
		for i := range 3 {
			c.has(i, fmt.Sprint("/f", round))
		}
	}
	c.stop(c.leader())
	c.create("/two")
}

// Who stops in an orderly way lets another lead first: nobody waits for an election.
func TestTheLeaderHandsOverBeforeItStops(t *testing.T) {
	c := found(t, 3)
	c.create("/f")
	old := c.leader()
	term := c.running[old].node.raft.CurrentTerm()
	c.stop(old)
	now := leads(t, c.up()...)
	if got := now.node.raft.CurrentTerm(); got != term+1 {
		t.Errorf("term %d became %d: there was an election without a candidate", term, got)
	}
	c.create("/g")
}

func TestARemovedServerEndsAndSaysWhy(t *testing.T) {
	c := found(t, 3)
	leader := c.leader()
	away := (leader + 1) % 3
	number := func(i int) uint64 { return uint64(i + 1) }
	// One that is down when it is removed.
	c.stop(away)
	if _, err := c.client().RemoveMds(within(t), &metapb.RemoveMdsRequest{Id: number(away)}); err != nil {
		t.Fatal(err)
	}
	c.awaitVoters(2)
	ends(t, c.start(away))
	c.running[away] = nil
	if _, err := Start(within(t), Config{Dir: c.dirs[away]}); !errors.Is(err, fsm.ErrRemoved) {
		t.Errorf("started once more: %v, want ErrRemoved", err)
	}
	// The one that leads.
	gone := c.running[leader]
	if _, err := c.client().RemoveMds(within(t), &metapb.RemoveMdsRequest{Id: number(leader)}); err != nil {
		t.Fatal(err)
	}
	ends(t, gone)
	c.running[leader] = nil
	c.awaitVoters(1)
	c.create("/alone")
	_, err := c.client().RemoveMds(within(t), &metapb.RemoveMdsRequest{Id: number(leader)})
	if status.Code(err) != codes.NotFound {
		t.Errorf("removed again: %v, want NotFound", err)
	}
	_, err = c.client().RemoveMds(within(t), &metapb.RemoveMdsRequest{Id: number(c.leader()), Force: true})
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("the last one: %v, want FailedPrecondition", err)
	}
}

// ends waits until a server has failed because it was removed.
func ends(t *testing.T, s *Server) {
	t.Helper()
	select {
	case <-s.Failed():
	case <-within(t).Done():
		t.Fatal("the server goes on")
	}
	if err := s.Close(); !errors.Is(err, fsm.ErrRemoved) {
		t.Errorf("%v, want ErrRemoved", err)
	}
}

func TestNobodyIsRemovedWhoIsNeededForAMajority(t *testing.T) {
	c := found(t, 3)
	leader := c.leader()
	down, needed := (leader+1)%3, (leader+2)%3
	c.stop(down)
	_, err := c.client().RemoveMds(within(t), &metapb.RemoveMdsRequest{Id: uint64(needed + 1)})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "1 of the 2 others") {
		t.Fatalf("%v, want a refusal", err)
	}
	// The one that is down can go, then the other.
	for _, i := range []int{down, needed} {
		if _, err := c.client().RemoveMds(within(t), &metapb.RemoveMdsRequest{Id: uint64(i + 1)}); err != nil {
			t.Fatal(err)
		}
	}
	c.awaitRemoved(needed)
	c.create("/f")
}

func (c *servers) awaitRemoved(i int) {
	c.t.Helper()
	ends(c.t, c.running[i])
	c.running[i] = nil
}

// A server in an empty folder, and one that was down for long, catch up although the log they need is gone.
func TestWhoLacksTheLogCatchesUpFromASnapshot(t *testing.T) {
	c := found(t, 3)
	leader := c.leader()
	lagging := (leader + 1) % 3
	c.stop(lagging)
	for i := range 50 {
		c.create(fmt.Sprint("/f", i))
	}
	r := c.running[leader].node.raft
	config := r.ReloadableConfig()
	config.TrailingLogs = 1
	if err := errors.Join(r.ReloadConfig(config), r.Snapshot().Error()); err != nil {
		t.Fatal(err)
	}
	first, err := c.running[leader].node.store.FirstIndex()
	if err != nil || first < 50 {
		t.Fatalf("the log begins at %d (%v): nothing was cut off", first, err)
	}
	c.start(lagging)
	c.has(lagging, "/f49")
	fresh := c.join()
	c.has(fresh, "/f0")
	for _, i := range []int{lagging, fresh} {
		if got := c.running[i].node.raft.Stats()["last_snapshot_index"]; got == "0" {
			t.Errorf("server %d caught up without a snapshot", i+1)
		}
		if err := c.running[i].node.machine.View(func(v *fsm.View) error { return v.Check() }); err != nil {
			t.Error(err)
		}
	}
}

func TestStatusTellsHowTheMetadataServersAre(t *testing.T) {
	c := found(t, 3)
	down := (c.leader() + 1) % 3
	c.stop(down)
	var m []*metapb.Mds
	await(t, "the one that is down is found out", func() bool {
		r, err := c.client().Status(within(t), &metapb.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		m = r.Mds
		return len(m) == 3 && m[down].State == metapb.Mds_UNAVAIL
	})
	for i, d := range m {
		if d.Id != uint64(i+1) || d.Address != c.address[i] || d.Leader != (i == c.leader()) {
			t.Errorf("server %d: %v", i+1, d)
		}
		if i != down && (d.State != metapb.Mds_AVAIL || d.Version != Version || d.Load.GetMemory() == 0) {
			t.Errorf("server %d, which is up: %v", i+1, d)
		}
	}
}
