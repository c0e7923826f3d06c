package blockstore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"pstorage/meta/metapb"
)

// reachTime is how long a takeover tries to reach the chunk servers before it takes the lease.
const reachTime = 5 * time.Second

// errUnreached: a takeover did not begin.
var errUnreached = errors.New("a chunk server that has replicas of the volume cannot be reached")

// TakeOver returns what recovery takes over volumes with that a client has left unclean: a client named as it is told opens the volume, does
// what each new holder does (R5), and closes it. cfg says how; metadata servers and identity are told with each call.
func TakeOver(cfg Config) func(ctx context.Context, meta metapb.MetaClient, as *metapb.Client, file *metapb.FileInfo) error {
	return func(ctx context.Context, meta metapb.MetaClient, as *metapb.Client, file *metapb.FileInfo) error {
		own := cfg
		own.Meta, own.Host, own.Registry = meta, as.Host, nil
		own.Identity = Identity{ID: [16]byte(as.Id), Incarnation: as.Incarnation}
		c, err := New(own)
		if err != nil {
			return err
		}
		defer context.AfterFunc(ctx, c.cancel)() // ends all that is under way
		return errors.Join(c.takeOver(ctx, file), c.Close())
	}
}

func (c *Client) takeOver(ctx context.Context, file *metapb.FileInfo) error {
	if err := c.reach(ctx, file); err != nil {
		return err
	}
	v, err := c.Open(ctx, file.Path, OpenOptions{ReadOnly: true, brief: true})
	if err != nil {
		return err
	}
	for !v.settled.Load() && !v.lease.lost.Load() && ctx.Err() == nil {
		v.sleep(pollLinks)
	}
	v.settleAll(ctx) // Close does so too, but not for long
	if ctx.Err() != nil {
		v.lose(context.Cause(ctx).Error()) // closing must not wait for anything
	}
	return v.Close()
}

// reach waits until all servers are connected that have replicas of the file. To drop those of one that only this machine cannot reach
// would harm for no use: nobody waits for the volume. And a lease that is taken in vain ends rebuilds of the file.
func (c *Client) reach(ctx context.Context, file *metapb.FileInfo) error {
	ctx, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	servers, err := c.holders(ctx, file.Id)
	if err != nil {
		return err
	}
	tick := time.NewTicker(pollLinks)
	defer tick.Stop()
	for id := range servers {
		for l := c.linkTo(id); !l.is(linkUp); {
			l.retry()
			select {
			case <-tick.C:
			case <-ctx.Done():
				return fmt.Errorf("%w: %d", errUnreached, id)
			}
		}
	}
	return nil
}

// holders are the chunk servers that have replicas of a file.
func (c *Client) holders(ctx context.Context, file uint64) (map[uint32]bool, error) {
	servers := map[uint32]bool{}
	err := c.readMap(ctx, file, func(chunks []*metapb.Chunk, known []*metapb.Server) {
		c.rememberServers(known)
		for _, m := range chunks {
			for _, id := range append(m.Insync, m.Syncing...) {
				servers[id] = true
			}
		}
	})
	return servers, err
}
