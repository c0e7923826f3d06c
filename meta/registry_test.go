package meta

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/client"
	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
	"pstorage/meta/targetpb"
)

const hushed = "a secret nobody is to see"

// withTarget makes an account, and a target with a LUN for a node.
func withTarget(t *testing.T, c *client.Client, name, ip string) *targetpb.Target {
	t.Helper()
	ctx := within(t)
	_, err := c.CreateAccount(ctx, &targetpb.AccountRequest{User: name, Secret: []byte(hushed)})
	if err == nil {
		_, err = c.CreateTarget(ctx, &targetpb.CreateTargetRequest{Name: name, Portals: []*targetpb.Portal{{Address: ip}}, Account: name, Host: "node"})
	}
	if err != nil {
		t.Fatal(err)
	}
	x, err := c.AddLun(ctx, &targetpb.AddLunRequest{Name: name, Number: 1, Size: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// synced asks what a node is to serve.
func synced(t *testing.T, c *client.Client, has uint64, wait time.Duration) *targetpb.SyncReply {
	t.Helper()
	out, err := c.Sync(within(t), &targetpb.SyncRequest{Host: "node", Revision: has, WaitMs: uint32(wait.Milliseconds())})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Whoever leads, a node is told the same, with the secrets; and these are in no file.
func TestTheRegistryOutlivesItsLeader(t *testing.T) {
	c := found(t, 3)
	cl := c.client()
	withTarget(t, cl, "t", "10.0.0.1")
	told := synced(t, cl, 0, 0)
	if len(told.Targets) != 1 || len(told.Credentials) != 1 || string(told.Credentials[0].Secret) != hushed {
		t.Fatal("the node is told something else")
	}
	for round := range 2 {
		waits := make(chan *targetpb.SyncReply, 1)
		ctx, has := within(t), told.Revision
		go func() {
			out, err := &targetpb.SyncReply{}, error(nil)
			for err == nil && !out.Changed {
				out, err = cl.Sync(ctx, &targetpb.SyncRequest{Host: "node", Revision: has, WaitMs: 2000})
			}
			if err != nil {
				t.Error(err)
			}
			waits <- out
		}()
		old := c.leader()
		c.stop(old)
		name := fmt.Sprint("next", round)
		if _, err := cl.CreateTarget(within(t), &targetpb.CreateTargetRequest{Name: name, Portals: []*targetpb.Portal{{Address: fmt.Sprint("10.0.1.", round+1)}}, Host: "node"}); err != nil {
			t.Fatal(err)
		}
		if told = <-waits; len(told.GetTargets()) != round+2 || len(told.Credentials) != 1 || string(told.Credentials[0].Secret) != hushed {
			t.Fatalf("after leader %d: %d targets", round, len(told.Targets))
		}
		c.start(old)
		c.leader()
	}
	if again := synced(t, cl, told.Revision, 0); again.Changed {
		t.Error("another leader tells of another revision")
	}
	for i, s := range c.running {
		if err := s.node.raft.Snapshot().Error(); err != nil && !errors.Is(err, raft.ErrNothingNewToSnapshot) {
			t.Fatal(err)
		}
		c.stop(i)
		if files := whoHas(t, c.dirs[i], []byte(hushed)); len(files) != 0 {
			t.Errorf("the secret is in %v", files)
		}
	}
}

// Servers whose state came by a snapshot know the registry, and can lead.
func TestTheRegistryIsInSnapshots(t *testing.T) {
	c := found(t, 1)
	cl := c.client()
	x := withTarget(t, cl, "t", "10.0.0.1")
	o, err := cl.Open(within(t), &metapb.OpenRequest{Client: &metapb.Client{Id: bytes.Repeat([]byte{7}, fsm.ClientIDSize)}, Path: x.Luns[0].Path})
	if err != nil {
		t.Fatal(err)
	}
	save := &targetpb.SaveReservationsRequest{File: o.File.Id, State: []byte("reserved"), Client: bytes.Repeat([]byte{7}, fsm.ClientIDSize), Epoch: o.Epoch}
	if _, err := cl.SaveReservations(within(t), save); err != nil {
		t.Fatal(err)
	}
	r := c.running[0].node.raft
	config := r.ReloadableConfig()
	config.TrailingLogs = 1
	if err := r.ReloadConfig(config); err != nil {
		t.Fatal(err)
	}
	if err := r.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := c.running[c.join()].node.raft.Stats()["last_snapshot_index"]; got == "0" {
			t.Error("it came without a snapshot")
		}
	}
	c.stop(0)
	next := c.running[c.leader()]
	cl = c.client() // the first has heard of no others yet
	told := synced(t, cl, 0, 0)
	if len(told.Targets) != 1 || len(told.Targets[0].Luns) != 1 || string(told.Credentials[0].Secret) != hushed {
		t.Error("the new server knows of something else")
	}
	kept, err := cl.LoadReservations(within(t), &targetpb.LoadReservationsRequest{File: o.File.Id})
	if err != nil || string(kept.State) != "reserved" || kept.Revision != 1 {
		t.Errorf("%v, %v", kept, err)
	}
	if err := next.View(func(v *fsm.View) error { return v.Check() }); err != nil {
		t.Error(err)
	}
}

// After a majority was lost, the server that goes on has the key, and so the secrets.
func TestTheRegistrySurvivesARecovery(t *testing.T) {
	c := found(t, 2)
	withTarget(t, c.client(), "t", "10.0.0.1")
	c.stop(0)
	c.stop(1)
	if err := Recover(c.dirs[1]); err != nil {
		t.Fatal(err)
	}
	c.start(1)
	leads(t, c.running[1])
	if told := synced(t, c.client(), 0, 0); len(told.Credentials) != 1 || string(told.Credentials[0].Secret) != hushed {
		t.Error("the secret is lost")
	}
}

// Every call goes to the leader, whichever server is asked.
func TestAnyServerSaysWhereTheRegistryIs(t *testing.T) {
	c := found(t, 2)
	follower := c.running[1-c.leader()]
	cl := dial(t, follower.ClientAddr())
	withTarget(t, cl, "t", "10.0.0.1")
	ctx := within(t)
	for what, call := range map[string]func() error{
		"start": func() error {
			_, err := cl.StartTarget(ctx, &targetpb.StartTargetRequest{Name: "t"})
			return err
		},
		"grow": func() error {
			_, err := cl.GrowLun(ctx, &targetpb.GrowLunRequest{Name: "t", Number: 1, Size: 1 << 31})
			return err
		},
		"accounts": func() error { _, err := cl.ListAccounts(ctx, &targetpb.ListAccountsRequest{}); return err },
		"account": func() error {
			_, err := cl.SetAccount(ctx, &targetpb.AccountRequest{User: "t", Secret: []byte(hushed + "!")})
			return err
		},
		"list": func() error { _, err := cl.ListTargets(ctx, &targetpb.ListTargetsRequest{}); return err },
		"set": func() error {
			_, err := cl.SetTarget(ctx, &targetpb.SetTargetRequest{Name: "t", Comment: new("x")})
			return err
		},
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := cl.DeleteTarget(ctx, &targetpb.DeleteTargetRequest{Name: "none"}); status.Code(err) != codes.NotFound {
		t.Error(err)
	}
}
