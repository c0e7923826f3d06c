package target

import (
	"context"
	"errors"
	"path"
	"strings"

	"pstorage/blockstore/block"
	"pstorage/meta/metapb"
)

// A snapshot is opened as VOLUME@NAME or VOLUME@UUID; the name is what comes after the last "@". A volume that is called so itself comes first.

// frozen names a snapshot.
type frozen struct{ path, name string }

// snapshotNamed reads a snapshot's name; ok is false if it is that of a volume, or of nothing.
func (v *Volumes) snapshotNamed(ctx context.Context, name string) (f frozen, ok bool, err error) {
	at := strings.LastIndexByte(name, '@')
	if at <= 0 || at == len(name)-1 {
		return f, false, nil
	}
	f = frozen{path: "/" + name[:at], name: name[at+1:]}
	if f.path != path.Clean(f.path) {
		return f, false, nil
	}
	_, _, err = v.describe(ctx, name, "/"+name)
	if errors.Is(err, block.ErrNotFound) {
		return f, true, nil
	}
	return f, false, err
}

// describeSnapshot describes a snapshot without opening it.
func (v *Volumes) describeSnapshot(ctx context.Context, name string, f frozen) (block.VolumeInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, rpcTime)
	defer cancel()
	rep, err := v.meta.OpenSnapshot(ctx, &metapb.OpenSnapshotRequest{Path: f.path, Name: f.name})
	if err != nil {
		return block.VolumeInfo{}, explain(err)
	}
	return snapshotInfo(name, int64(rep.GetSnapshot().GetSize()), rep.GetSnapshot().GetId())
}

func snapshotInfo(name string, size int64, id []byte) (block.VolumeInfo, error) {
	if len(id) != 16 {
		return block.VolumeInfo{}, errors.New("the metadata servers describe the snapshot badly")
	}
	return block.VolumeInfo{Name: name, Size: size, ID: [16]byte(id), ReadOnly: true}, nil
}

// snapshot is a device that shows one, and has its number.
type snapshot interface {
	block.Device
	ID() [16]byte
	// changed tells what was written since an older one was taken.
	changed(ctx context.Context, since snapshot, offset, length int64, most int) ([]block.Change, error)
}

// openFrozen opens the entry's snapshot.
func (e *entry) openFrozen(ctx context.Context) (block.Device, error) {
	device, err := e.volumes.openSnapshot(ctx, e.frozen.path, e.frozen.name)
	if err != nil {
		return nil, explain(err)
	}
	id := device.ID()
	if e.info, err = snapshotInfo(e.name, device.Size(), id[:]); err != nil {
		return nil, errors.Join(err, device.Close())
	}
	return device, nil
}
