package faults

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"pstorage/itest/cluster"
	"pstorage/itest/hosts"
	"pstorage/itest/scenario"
)

// program is the program under test, built once.
var program string

func TestMain(m *testing.M) { os.Exit(cluster.WithProgram(&program, m.Run)) }

// newLab starts a lab that ends with the test, and skips the test where there can be none.
func newLab(t *testing.T, o cluster.Options) (*Lab, context.Context) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	t.Cleanup(cancel)
	dir, err := os.MkdirTemp("", "pst") // short: it has sockets in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	lab, err := NewLab(ctx, program, dir, o)
	if errors.Is(err, hosts.ErrUnable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := lab.Close(); err != nil {
			t.Error(err)
		}
	})
	return lab, ctx
}

// TestUsersSeeNoErrorThroughFaultsOfServers does each kind of fault once. How long users wait is for the acceptance runs to judge.
func TestUsersSeeNoErrorThroughFaultsOfServers(t *testing.T) {
	if err := scenario.Need("fio"); err != nil {
		t.Skip(err)
	}
	lab, ctx := newLab(t, cluster.Options{Servers: 5, Replicas: "3:2"})
	kinds := Kinds(1)
	plan := Plan{Kinds: kinds, For: 35 * time.Second, Every: 6 * time.Second, Hold: 4500 * time.Millisecond, Seed: uint64(time.Now().UnixNano())}
	plan.Say = func(line string) { t.Log(line) }
	t.Logf("seed %d", plan.Seed)
	outcome, err := lab.Endure(ctx, plan, 64<<20)
	if err != nil {
		t.Fatal(err)
	}
	if outcome.Faults < len(kinds) || outcome.Rounds == 0 {
		t.Errorf("%d faults, %d rounds of fio: want each of the %d kinds", outcome.Faults, outcome.Rounds, len(kinds))
	}
	t.Log(outcome)
}
