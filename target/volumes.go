package target

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"pstorage/blockstore"
	"pstorage/blockstore/block"
	"pstorage/meta/metapb"
)

const (
	// linger is how long a volume stays open without users.
	linger = 3 * time.Second
	// openTime is how long opening a volume may take: longer than the lease of a holder that died takes to run out.
	openTime = 12 * time.Second
	// rpcTime bounds a question to the metadata servers.
	rpcTime = 5 * time.Second
)

// Volumes is the catalog of a cluster's volumes: the regular files of its namespace. A volume's name is its path without the first slash. Its snapshots
// are not listed, and are opened as "volume@snapshot" (snapshots.go).
type Volumes struct {
	meta metapb.MetaClient
	open func(ctx context.Context, path string) (block.Device, error)

	openSnapshot func(ctx context.Context, path, name string) (snapshot, error)

	ctx    context.Context // of opening; ends with Close
	cancel context.CancelFunc

	spaces *spaces

	mu      sync.Mutex
	closed  bool
	cluster uuid.UUID // once asked
	entries map[string]*entry
}

// NewVolumes returns the catalog. Volumes are opened, and so their leases taken, at their first use.
func NewVolumes(client *blockstore.Client, meta metapb.MetaClient) *Volumes {
	v := newVolumes(meta, func(ctx context.Context, path string) (block.Device, error) {
		v, err := client.Open(ctx, path, blockstore.OpenOptions{})
		if err != nil {
			return nil, err
		}
		return v, nil
	})
	v.openSnapshot = func(ctx context.Context, path, name string) (snapshot, error) {
		s, err := client.OpenSnapshot(ctx, path, name)
		if err != nil {
			return nil, err
		}
		return stored{s}, nil
	}
	return v
}

func newVolumes(meta metapb.MetaClient, open func(context.Context, string) (block.Device, error)) *Volumes {
	v := &Volumes{meta: meta, open: open, entries: map[string]*entry{}}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	v.spaces = newSpaces(v.ctx, meta)
	return v
}

// List implements block.Catalog.
func (v *Volumes) List(ctx context.Context) ([]block.VolumeInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, rpcTime)
	defer cancel()
	cluster, err := v.clusterID(ctx)
	if err != nil {
		return nil, err
	}
	reply, err := v.meta.List(ctx, &metapb.ListRequest{Path: "/", Recursive: true})
	if err != nil {
		return nil, explain(err)
	}
	out := make([]block.VolumeInfo, 0, len(reply.Files))
	for _, f := range reply.Files {
		if name, ok := volumeName(f.Path); ok && !f.Directory {
			out = append(out, newInfo(cluster, name, f))
		}
	}
	slices.SortFunc(out, func(a, b block.VolumeInfo) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Lookup describes one volume, or snapshot, without opening it.
func (v *Volumes) Lookup(ctx context.Context, name string) (block.VolumeInfo, error) {
	if f, ok, err := v.snapshotNamed(ctx, name); err != nil {
		return block.VolumeInfo{}, err
	} else if ok {
		return v.describeSnapshot(ctx, name, f)
	}
	path, ok := volumePath(name)
	if !ok {
		return block.VolumeInfo{}, block.ErrNotFound
	}
	info, _, err := v.describe(ctx, name, path)
	return info, err
}

// describe also returns the file's number.
func (v *Volumes) describe(ctx context.Context, name, path string) (info block.VolumeInfo, file uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, rpcTime)
	defer cancel()
	cluster, err := v.clusterID(ctx)
	if err != nil {
		return info, 0, err
	}
	f, err := v.meta.Lookup(ctx, &metapb.LookupRequest{Path: path})
	if err != nil {
		return info, 0, explain(err)
	}
	if f.Directory {
		return info, 0, block.ErrNotFound
	}
	return newInfo(cluster, name, f), f.Id, nil
}

func (v *Volumes) clusterID(ctx context.Context) (uuid.UUID, error) {
	v.mu.Lock()
	id := v.cluster
	v.mu.Unlock()
	if id != uuid.Nil {
		return id, nil
	}
	reply, err := v.meta.Status(ctx, &metapb.StatusRequest{})
	if err != nil {
		return uuid.Nil, explain(err)
	}
	if id, err = uuid.FromBytes(reply.ClusterId); err != nil {
		return uuid.Nil, errors.New("the metadata servers do not tell the cluster's number")
	}
	v.mu.Lock()
	v.cluster = id
	v.mu.Unlock()
	return id, nil
}

// newInfo makes the description of a volume. Its number is derived from the cluster's and the file's, which are never reused.
func newInfo(cluster uuid.UUID, name string, f *metapb.FileInfo) block.VolumeInfo {
	id := uuid.NewSHA1(cluster, binary.BigEndian.AppendUint64(nil, cmp.Or(f.Identity, f.Id)))
	return block.VolumeInfo{Name: name, Size: int64(f.Size), ID: id}
}

func volumePath(name string) (clean string, ok bool) {
	clean = path.Clean("/" + name)
	return clean, clean == "/"+name && clean != "/" && !strings.HasPrefix(name, lunFolder)
}

func volumeName(path string) (name string, ok bool) {
	name = strings.TrimPrefix(path, "/")
	_, ok = volumePath(name)
	return name, ok
}

// topLevel is the part of a catalog that iSCSI serves: a target's name has no slashes (RFC 7143, 4.2.7.2).
type topLevel struct{ block.Catalog }

func (t topLevel) List(ctx context.Context) ([]block.VolumeInfo, error) {
	all, err := t.Catalog.List(ctx)
	return slices.DeleteFunc(all, func(v block.VolumeInfo) bool { return strings.Contains(v.Name, "/") }), err
}

func (t topLevel) Open(ctx context.Context, name string) (block.Device, block.VolumeInfo, error) {
	if strings.Contains(name, "/") {
		return nil, block.VolumeInfo{}, block.ErrNotFound
	}
	return t.Catalog.Open(ctx, name)
}
