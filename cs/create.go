package cs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"pstorage/cs/disk"
	"pstorage/cs/store"
	"pstorage/meta/client"
	"pstorage/meta/metapb"
)

// CreateOptions of a new chunk server.
type CreateOptions struct {
	Dir     string
	Cluster string   // checked against the metadata servers', unless empty
	MDS     []string // their client addresses; not used if Meta is given
	Address string   // HOST:PORT it will be reached at, may be empty: told at each start
	Host    string   // identity of the machine, for failure domains; empty: its host name
	// Location is room.row.rack, empty: not known; Tier is 0 to 3.
	Location string
	Tier     uint32
	Meta     metapb.MetaClient
	Disk     disk.FS // of a simulation, has the store; nil: the operating system's, in Dir

	Journal     string // folder of a write journal; empty: none
	JournalSize int64  // in bytes
}

// Create registers a new chunk server with the metadata servers and makes its folder. When it fails, the folder can be used for
// another attempt; a number that was given out is lost.
func Create(ctx context.Context, o CreateOptions) (id uint32, err error) {
	if o.Host == "" {
		if o.Host, err = os.Hostname(); err != nil {
			return 0, err
		}
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return 0, err
	}
	if o.Journal != "" {
		if err := CheckJournalSize(o.JournalSize); err != nil {
			return 0, err
		}
	}
	lock, err := lockDir(o.Dir)
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	if _, err := LoadIdentity(o.Dir); err == nil {
		return 0, fmt.Errorf("%s: %w", o.Dir, ErrExists)
	} else if !errors.Is(err, ErrNoIdentity) {
		return 0, err
	}
	who, err := enrol(ctx, o)
	if err != nil {
		return 0, err
	}
	at := filepath.Join(o.Dir, storeName)
	if err := makeStore(o.Disk, at); err != nil {
		return 0, err
	}
	if err := makeJournal(o, at); err != nil {
		return 0, err
	}
	if err := saveIdentity(o.Dir, who); err != nil {
		return 0, fmt.Errorf("identity in %s: %w", o.Dir, errors.Join(err, unmakeJournal(o, at)))
	}
	return who.Server, nil
}

// enrol gets a number for the chunk server.
func enrol(ctx context.Context, o CreateOptions) (Identity, error) {
	meta := o.Meta
	if meta == nil {
		c, err := client.New(o.MDS)
		if err != nil {
			return Identity{}, err
		}
		defer c.Close()
		meta = c
	}
	r, err := meta.CreateServer(ctx, &metapb.CreateServerRequest{Address: o.Address, Host: o.Host, Location: o.Location, Tier: o.Tier})
	if err != nil {
		return Identity{}, fmt.Errorf("registering the chunk server: %w", err)
	}
	if o.Cluster != "" && r.Cluster != o.Cluster {
		return Identity{}, fmt.Errorf("%w: %q, not %q", ErrCluster, r.Cluster, o.Cluster)
	}
	who := Identity{Cluster: r.Cluster, Server: r.Id, Host: o.Host}
	if len(r.ClusterId) != len(who.ClusterID) || r.Id == 0 {
		return Identity{}, fmt.Errorf("%w: server %d, cluster id of %d bytes", ErrIdentity, r.Id, len(r.ClusterId))
	}
	copy(who.ClusterID[:], r.ClusterId)
	return who, nil
}

// makeStore makes an empty store; what an attempt before has left, without an identity beside it, is nobody's.
func makeStore(fsys disk.FS, dir string) error {
	if fsys == nil {
		fsys = disk.OS{}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	if err := store.Create(fsys, dir); err != nil {
		return fmt.Errorf("chunk store in %s: %w", dir, err)
	}
	return nil
}
