package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"pstorage/backup"
	"pstorage/backup/stream"
	"pstorage/blockstore/block"
	"pstorage/meta/metapb"
	"pstorage/target/nbd"
)

// imageTool is what knows the formats of image files.
const imageTool = "qemu-img"

// formats are what imageTool calls them.
var formats = map[string]string{"raw": "raw", "qcow2": "qcow2", "ploop": "parallels"}

// convertTo makes an image file of a snapshot, or of one that it takes. The file has its name once it is complete.
func (a *app) convertTo(ctx context.Context, cmd *cobra.Command, name, file, format string) (err error) {
	if _, err := os.Lstat(file); err == nil {
		return coded(exitRefused, fmt.Errorf("%s is there already", file))
	}
	meta, closer, err := a.connect(a)
	if err != nil {
		return err
	}
	defer closer.Close()
	found, drop, err := a.exportedSnapshot(cmd, meta, name, exportOptions{})
	if err != nil {
		return err
	}
	if drop != nil {
		defer func() { err = errors.Join(err, drop()) }()
	}
	client, err := a.newBlockClient(meta)
	if err != nil {
		return err
	}
	defer client.Close()
	source, err := client.OpenSnapshot(ctx, found.GetPath(), snapshotUUID(found))
	if err != nil {
		return a.explainSnapshot("convert "+name, err)
	}
	defer source.Close()
	err = overNBD(ctx, source, true, func(uri string) error {
		_, err := runImageTool(ctx, "convert", "-f", "raw", "-O", format, uri, file+partial)
		return err
	})
	if err != nil {
		return errors.Join(err, removeFile(file+partial))
	}
	return errors.Join(syncFile(file+partial), publish(file+partial, file))
}

// removeFile removes one that may not be there.
func removeFile(name string) error {
	if err := os.Remove(name); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// convertFrom makes a volume of an image file, as an import of something that only this command knows: until it has ended nobody can open the volume, and if it fails the volume goes.
func (a *app) convertFrom(ctx context.Context, cmd *cobra.Command, file, path, format string, attributes *metapb.Attributes) error {
	size, err := imageSize(ctx, file, format)
	if err != nil {
		return err
	}
	meta, closer, err := a.connect(a)
	if err != nil {
		return err
	}
	defer closer.Close()
	i := &importing{app: a, cmd: cmd, path: path, attributes: attributes, meta: meta, h: stream.Header{Snapshot: stream.ID(uuid.New()), Size: size, Name: file}}
	if i.client, err = a.newBlockClient(meta); err != nil {
		return err
	}
	if _, err := i.prepare(ctx); err != nil {
		return errors.Join(err, i.client.Close())
	}
	err = overNBD(ctx, i.volume, false, func(uri string) error {
		_, err := runImageTool(ctx, "convert", "-n", "--target-is-zero", "-f", format, "-O", "raw", file, uri)
		return err
	})
	var taken *metapb.Snapshot
	if err == nil {
		err = backup.Flush(i.volume)
	}
	if err == nil {
		taken, err = i.finish()
	}
	err = errors.Join(err, i.client.Close())
	if taken == nil {
		return errors.Join(err, i.forget())
	}
	return errors.Join(err, a.dropSnapshot(meta, taken))
}

// forget removes the volume, which nobody else has ever opened.
func (i *importing) forget() error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanTime)
	defer cancel()
	_, err := i.meta.Remove(ctx, &metapb.RemoveRequest{Path: i.path})
	return i.explain("remove "+i.path[1:], err)
}

// imageSize is the size of the disk that an image file is of, in whole sectors.
func imageSize(ctx context.Context, file, format string) (int64, error) {
	out, err := runImageTool(ctx, "info", "--output=json", "-f", format, file)
	if err != nil {
		return 0, err
	}
	var info struct {
		Size int64 `json:"virtual-size"`
	}
	if err := json.Unmarshal(out, &info); err != nil || info.Size <= 0 {
		return 0, fmt.Errorf("%s: its size is not known (%d, %v)", file, info.Size, err)
	}
	return (info.Size + block.SectorSize - 1) / block.SectorSize * block.SectorSize, nil
}

func runImageTool(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, imageTool, args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, coded(exitUsage, fmt.Errorf("%s is not installed: it knows the formats of image files", imageTool))
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w: %s", imageTool, args[0], err, strings.TrimSpace(errs.String()))
	}
	return out, nil
}

// overNBD serves a device to this user alone, on a socket, while f runs.
func overNBD(ctx context.Context, d block.Device, readOnly bool, f func(uri string) error) error {
	dir, err := os.MkdirTemp("", "pstorage-convert-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "nbd")
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return err
	}
	server := nbd.New(nbd.Config{Catalog: oneDevice{d, block.VolumeInfo{Name: "volume", Size: d.Size(), ReadOnly: readOnly}}})
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	err = f("nbd+unix:///volume?socket=" + socket)
	stop, cancel := context.WithTimeout(context.Background(), cleanTime)
	defer cancel()
	if stopErr := server.Shutdown(stop); err == nil {
		err = stopErr
	}
	<-served
	return err
}

// oneDevice is a catalog of one.
type oneDevice struct {
	device block.Device
	info   block.VolumeInfo
}

// List implements block.Catalog.
func (c oneDevice) List(context.Context) ([]block.VolumeInfo, error) {
	return []block.VolumeInfo{c.info}, nil
}

// Open implements block.Catalog.
func (c oneDevice) Open(context.Context, string) (block.Device, block.VolumeInfo, error) {
	return keptOpen{c.device}, c.info, nil
}

// keptOpen stays open when one of its users closes it.
type keptOpen struct{ block.Device }

// Close implements block.Device.
func (keptOpen) Close() error { return nil }
