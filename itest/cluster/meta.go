package cluster

import (
	"context"
	"errors"
	"net"
	"strconv"

	"pstorage/meta/client"
	"pstorage/meta/metapb"
)

// Configure sets parameters of a cluster whose metadata servers are on this machine's loopback.
func (c *Cluster) Configure(ctx context.Context, set map[string]string) error {
	return c.ask(func(meta *client.Client) error {
		_, err := meta.SetConfig(ctx, &metapb.SetConfigRequest{Set: set})
		return err
	})
}

// DeleteSnapshot deletes a snapshot of such a cluster.
func (c *Cluster) DeleteSnapshot(ctx context.Context, id []byte) error {
	return c.ask(func(meta *client.Client) error {
		_, err := meta.DeleteSnapshot(ctx, &metapb.DeleteSnapshotRequest{Id: id})
		return err
	})
}

// SwitchSnapshot makes a volume what one of its snapshots shows.
func (c *Cluster) SwitchSnapshot(ctx context.Context, path, name string) error {
	return c.ask(func(meta *client.Client) error {
		s, err := meta.OpenSnapshot(ctx, &metapb.OpenSnapshotRequest{Path: path, Name: name, Over: true})
		if err == nil {
			_, err = meta.SwitchSnapshot(ctx, &metapb.SwitchSnapshotRequest{Id: s.Snapshot.Id})
		}
		return err
	})
}

func (c *Cluster) ask(question func(*client.Client) error) (err error) {
	var addresses []string
	for _, raft := range c.mdsAddresses { // clients have the next port
		host, port, err := net.SplitHostPort(raft)
		if err != nil {
			return err
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			return err
		}
		addresses = append(addresses, net.JoinHostPort(host, strconv.Itoa(n+1)))
	}
	meta, err := client.New(addresses)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, meta.Close()) }()
	return question(meta)
}

// AddCS makes one more chunk server and starts it.
func (c *Cluster) AddCS(ctx context.Context) error {
	c.CS = append(c.CS, nil)
	return c.makeCS(ctx, len(c.CS)-1)
}
