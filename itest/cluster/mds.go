package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// lookPause is between two looks at the state of the metadata servers.
const lookPause = 50 * time.Millisecond

// AddMDS makes a further metadata server and starts it. It is the last in c.MDS.
func (c *Cluster) AddMDS(ctx context.Context) error {
	c.MDS = append(c.MDS, nil)
	return c.makeMDS(ctx, len(c.MDS)-1)
}

// MDSState is what list-services -M tells of a metadata server.
type MDSState struct {
	ID      uint64
	Leader  bool
	Status  string
	Address string
	Client  string `json:"client_address"`
}

// MDSStates asks for the state of the metadata servers.
func (c *Cluster) MDSStates(ctx context.Context) (out []MDSState, err error) {
	text, err := c.Run(ctx, "list-services", "-M", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(text), &out)
	}
	return out, err
}

// LeadingMDS is the place in c.MDS of the server that leads.
func (c *Cluster) LeadingMDS(ctx context.Context) (int, error) {
	states, err := c.MDSStates(ctx)
	if err != nil {
		return 0, err
	}
	for _, s := range states {
		for i, p := range c.MDS {
			if s.Leader && p != nil && p.Way("mds ") == "mds "+s.Client {
				return i, nil
			}
		}
	}
	return 0, fmt.Errorf("none of the metadata servers leads: %+v", states)
}

// AwaitMDS waits until so many metadata servers are up and vote.
func (c *Cluster) AwaitMDS(ctx context.Context, count int) error {
	for {
		states, err := c.MDSStates(ctx)
		up := 0
		for _, s := range states {
			if s.Status == "avail" {
				up++
			}
		}
		if err == nil && up == count {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d metadata servers are up (%+v, %v): %w", up, count, states, err, ctx.Err())
		case <-time.After(lookPause):
		}
	}
}
