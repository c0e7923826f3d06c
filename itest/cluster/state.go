package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"pstorage/cli/print"
)

// State is what `stat` shows.
func (c *Cluster) State(ctx context.Context) (state print.Status, err error) {
	return parseState(c.Run(ctx, "stat", "--json"))
}

// State is what `stat` shows.
func (u *Up) State(ctx context.Context) (state print.Status, err error) {
	command := exec.CommandContext(ctx, u.Binary, "-b", u.mds, "stat", "--json")
	out, err := command.Output()
	return parseState(string(out), err)
}

func parseState(out string, err error) (state print.Status, _ error) {
	if err != nil {
		return state, err
	}
	if err := json.Unmarshal([]byte(out), &state); err != nil {
		return state, fmt.Errorf("stat: %w in %q", err, out)
	}
	return state, nil
}

// Leader is the number, from 0, of the metadata server that leads.
func (c *Cluster) Leader(ctx context.Context) (int, error) {
	state, err := c.State(ctx)
	if err != nil {
		return 0, err
	}
	for _, m := range state.MDS {
		if !m.Leader {
			continue
		}
		for i, address := range c.mdsAddresses {
			if m.Address == address {
				return i, nil
			}
		}
	}
	return 0, errors.New("no metadata server leads")
}

// pollEvery is how often the cluster is asked while something is waited for.
const pollEvery = 200 * time.Millisecond

// WaitWhole waits until no chunk lacks a replica, every chunk server is there, and nothing is suspect.
func (c *Cluster) WaitWhole(ctx context.Context, limit time.Duration) error {
	return waitWhole(ctx, limit, c.State)
}

// WaitWhole waits for the same.
func (u *Up) WaitWhole(ctx context.Context, limit time.Duration) error {
	return waitWhole(ctx, limit, u.State)
}

func waitWhole(ctx context.Context, limit time.Duration, ask func(context.Context) (print.Status, error)) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	lacks := errors.New("the cluster does not answer")
	for {
		state, err := ask(ctx)
		switch {
		case err == nil && lack(state) == nil:
			return nil
		case err == nil:
			lacks = lack(state)
		case ctx.Err() == nil:
			lacks = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not whole after %v: %w", limit, lacks)
		case <-time.After(pollEvery):
		}
	}
}

// lack says what keeps the cluster from being whole; nil: nothing.
func lack(state print.Status) error {
	var lacks []string
	if n := state.Chunks; n.Degraded+n.Blocked+n.Offline+n.Replicating > 0 {
		lacks = append(lacks, fmt.Sprintf("of %d chunks %d are degraded, %d blocked, %d offline, %d replicating", n.Total, n.Degraded, n.Blocked, n.Offline, n.Replicating))
	}
	for _, s := range state.CS {
		if s.Status != "active" || s.Suspects > 0 {
			lacks = append(lacks, fmt.Sprintf("chunk server %d is %s with %d suspects", s.ID, s.Status, s.Suspects))
		}
	}
	if len(lacks) == 0 {
		return nil
	}
	return errors.New(strings.Join(lacks, "; "))
}
