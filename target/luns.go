package target

import (
	"context"
	"path"
	"strings"

	"pstorage/blockstore/block"
)

// lunFolder holds the LUNs of registered iSCSI targets, which are served as those alone.
const lunFolder = "iscsi/"

// LUNs is the catalog of what Volumes leaves out: the volumes that are LUNs of registered iSCSI targets. It opens those that a target
// names, and lists none.
type LUNs struct{ volumes *Volumes }

// LUNs returns that catalog.
func (v *Volumes) LUNs() LUNs { return LUNs{v} }

// List implements block.Catalog.
func (LUNs) List(context.Context) ([]block.VolumeInfo, error) { return nil, nil }

// Open implements block.Catalog.
func (l LUNs) Open(ctx context.Context, name string) (block.Device, block.VolumeInfo, error) {
	if !strings.HasPrefix(name, lunFolder) || path.Clean(name) != name {
		return nil, block.VolumeInfo{}, block.ErrNotFound
	}
	return l.volumes.use(ctx, name, "/"+name)
}

// Release closes a volume that nobody uses any more at once, and returns when it is closed: then another node may open it. It does not
// wait while somebody uses it.
func (l LUNs) Release(ctx context.Context, name string) error {
	v := l.volumes
	v.mu.Lock()
	e := v.entries[name]
	if e == nil || e.users > 0 {
		v.mu.Unlock()
		return nil
	}
	e.hurry = true
	e.idle()
	v.mu.Unlock()
	if err := e.awaitGone(ctx); err != nil {
		return err
	}
	return e.closeErr
}
