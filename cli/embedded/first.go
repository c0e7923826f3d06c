package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/cli/size"
	"pstorage/meta/metapb"
)

// volumesMark is the file that says that first volumes have been made.
const volumesMark = "volumes"

// makeOnce makes a folder by f if it is not there. A crash leaves either nothing of it under that name, or all.
func makeOnce(dir string, f func(dir string) error) error {
	if exists(dir) {
		return nil
	}
	unfinished := dir + ".new"
	if err := os.RemoveAll(unfinished); err != nil {
		return err
	}
	if err := f(unfinished); err != nil {
		return err
	}
	if err := os.Rename(unfinished, dir); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(dir))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

func syncFolder(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// prepare waits for the chunk servers, sets the cluster's attributes and makes the volumes that are not there.
func (c *Cluster) prepare(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, attachTime)
	defer cancel()
	if err := c.waitForServers(ctx); err != nil {
		return err
	}
	isNew := !exists(c.path(volumesMark))
	if err := c.setAttributes(ctx, isNew); err != nil {
		return fmt.Errorf("set the cluster's attributes: %w", err)
	}
	volumes := c.config.Volumes
	if isNew && len(volumes) == 0 {
		volumes = c.config.DefaultVolumes
	}
	for _, volume := range volumes {
		if err := c.makeVolume(ctx, volume); err != nil {
			return fmt.Errorf("make volume %s: %w", volume.Name, err)
		}
	}
	if isNew {
		return c.markVolumes()
	}
	return nil
}

func (c *Cluster) markVolumes() error {
	file, err := os.Create(c.path(volumesMark))
	if err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	return syncFolder(c.config.Dir)
}

// pollPause is between two looks at whether the chunk servers have been admitted.
const pollPause = 10 * time.Millisecond

// waitForServers returns when every chunk server of the process takes work.
func (c *Cluster) waitForServers(ctx context.Context) error {
	for {
		reply, err := c.meta.Status(ctx, &metapb.StatusRequest{})
		if err != nil {
			return fmt.Errorf("state of the cluster: %w", err)
		}
		active := map[uint32]bool{}
		for _, server := range reply.GetServers() {
			active[server.GetId()] = server.GetState() == metapb.Server_ACTIVE
		}
		missing := uint32(0)
		for _, server := range c.servers {
			if !active[server.ID()] {
				missing = server.ID()
			}
		}
		if missing == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("chunk server %d has not been admitted to the cluster: %w", missing, ctx.Err())
		case <-time.After(pollPause):
		}
	}
}

func (c *Cluster) setAttributes(ctx context.Context, isNew bool) error {
	attributes := &metapb.Attributes{ReplicasNorm: c.config.Replicas.Norm, ReplicasMin: c.config.Replicas.Min, ChunkSize: c.config.ChunkSize}
	if isNew {
		attributes.FailureDomain = "disk" // all chunk servers are on this one machine
		if attributes.ReplicasNorm == 0 {
			attributes.ReplicasNorm = uint32(min(len(c.servers), 3))
			attributes.ReplicasMin = (attributes.ReplicasNorm + 1) / 2
		}
	}
	if attributes.FailureDomain == "" && attributes.ReplicasNorm == 0 && attributes.ChunkSize == 0 {
		return nil
	}
	_, err := c.meta.SetAttributes(ctx, &metapb.SetAttributesRequest{Path: "/", Attributes: attributes})
	return err
}

// makeVolume makes a volume. One that is there stays as it is.
func (c *Cluster) makeVolume(ctx context.Context, volume Volume) error {
	path := "/" + volume.Name
	_, err := c.meta.Create(ctx, &metapb.CreateRequest{Path: path, Size: volume.Size})
	if status.Code(err) != codes.AlreadyExists {
		return err
	}
	there, err := c.meta.Lookup(ctx, &metapb.LookupRequest{Path: path})
	if err == nil && there.GetSize() != volume.Size {
		c.config.Logger.Warn("the volume is there with another size, which it keeps (pstorage resize enlarges it)",
			"volume", volume.Name, "size", size.Format(there.GetSize()))
	}
	return err
}
