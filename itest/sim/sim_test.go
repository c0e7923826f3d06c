package sim

import (
	"os"
	"slices"
	"strconv"
	"testing"
	"time"
)

// seeds are those that the environment asks for: SEED=N one alone, SEEDS=N the first N; else so many.
func seeds(t *testing.T, usual int) (list []uint64) {
	if n, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		return []uint64{n}
	}
	if n, err := strconv.Atoi(os.Getenv("SEEDS")); err == nil {
		usual = n
	}
	for i := range usual {
		list = append(list, uint64(i+1))
	}
	return list
}

// report fails the test with what a run has found.
func report(t *testing.T, seed uint64, r Result) {
	t.Helper()
	if len(r.Wrong) == 0 {
		return
	}
	for _, w := range r.Wrong[:min(len(r.Wrong), 5)] {
		t.Errorf("seed %d: %s", seed, w)
	}
	t.Fatalf("%d findings; the last events:\n%s", len(r.Wrong), r.Trace)
}

func TestWithoutFaultsNothingIsLost(t *testing.T) {
	for _, seed := range seeds(t, 3) {
		r := Run(t, Options{Seed: seed, Snapshots: true})
		report(t, seed, r)
		if r.Reads < 300 || r.Writes < 300 {
			t.Errorf("seed %d: only %d reads and %d writes", seed, r.Reads, r.Writes)
		}
	}
}

func TestEveryPromiseHoldsThroughFaults(t *testing.T) {
	void := 0
	for _, seed := range seeds(t, 10) {
		r := Run(t, Options{Seed: seed, Faults: Faults})
		report(t, seed, r)
		if r.Void {
			void++
		}
	}
	if all := len(seeds(t, 10)); void > all/4+1 {
		t.Errorf("%d runs of %d went beyond what can be judged", void, all)
	}
}

func TestSnapshotsHoldThroughFaults(t *testing.T) {
	faults := slices.Concat(ServerFaults, PowerFaults, NetworkFaults, MetaFaults, ClientFaults)
	for _, seed := range seeds(t, 4) {
		report(t, seed, Run(t, Options{Seed: seed, Faults: faults, Snapshots: true}))
	}
}

func TestClonesHoldThroughFaults(t *testing.T) {
	for _, faults := range [][]Fault{nil, slices.Concat(ServerFaults, PowerFaults, NetworkFaults, MetaFaults, ClientFaults)} {
		for _, seed := range seeds(t, 3) {
			report(t, seed, Run(t, Options{Seed: seed, Faults: faults, Snapshots: true, Clones: true}))
		}
	}
}

// TestWhatClientsLeaveIsTakenOver has no client come back: recovery alone has to make the replicas equal, and rebuild what is missing (R7).
func TestWhatClientsLeaveIsTakenOver(t *testing.T) {
	faults := slices.Concat(ServerFaults, PowerFaults, NetworkFaults, MetaFaults, ClientFaults) // nobody reads what rots
	for _, seed := range seeds(t, 4) {
		report(t, seed, Run(t, Options{Seed: seed, Faults: faults, Time: 30 * time.Second, Abandoned: true}))
	}
}

func TestEveryPromiseHoldsThroughFaultsOfOneKind(t *testing.T) {
	for name, faults := range map[string][]Fault{"servers": ServerFaults, "power": PowerFaults, "network": NetworkFaults, "disks": DiskFaults,
		"metadata": MetaFaults, "clients": ClientFaults} {
		t.Run(name, func(t *testing.T) {
			for _, seed := range seeds(t, 1) {
				report(t, seed, Run(t, Options{Seed: seed, Faults: faults}))
			}
		})
	}
}
