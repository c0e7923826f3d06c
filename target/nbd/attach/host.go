package attach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Host is the machine whose kernel attaches exports.
type Host struct {
	Kernel Kernel
	Sysfs  string // /sys/block
	Dev    string // /dev
	Folder string // of the records
	Links  string // of the links named after volumes
}

// Where a Host has what.
const (
	DefaultSysfs  = "/sys/block"
	DefaultDev    = "/dev"
	DefaultFolder = "/run/pstorage/nbd"
	DefaultLinks  = "/dev/pstorage"
)

// Errors of a Host.
var (
	ErrMapped    = errors.New("mapped already")
	ErrNotMapped = errors.New("not mapped here")
	ErrInUse     = errors.New("the device is in use: it is mounted, or a program has it open")
)

// Record says what a device is mapped to.
type Record struct {
	Volume      string   `json:"volume"`
	Device      string   `json:"device"` // its path
	Index       uint32   `json:"index"`
	Servers     []string `json:"servers"`
	Connections int      `json:"connections"`
	ReadOnly    bool     `json:"read_only"`
	Patience    int      `json:"timeout_seconds"` // how long requests wait without a connection
	Keeper      int      `json:"keeper"`          // process
	Sessions    []string `json:"sessions"`        // identities of connections that the kernel has, or had
}

// Status is a device that is mapped.
type Status struct {
	Record
	Size int64 `json:"size"` // bytes
	Kept bool  `json:"kept"` // a process sees to its connections
}

// backend is how the kernel's device names a volume.
func backend(volume string) string { return "pstorage:" + volume }

func (h *Host) recordPath(volume string) string {
	return filepath.Join(h.Folder, url.PathEscape(volume)+".json")
}

func (h *Host) lockPath(volume string) string {
	return filepath.Join(h.Folder, url.PathEscape(volume)+".lock")
}

func (h *Host) devicePath(index uint32) string { return filepath.Join(h.Dev, deviceName(index)) }

func (h *Host) linkPath(volume string) string { return filepath.Join(h.Links, url.PathEscape(volume)) }

func deviceName(index uint32) string { return fmt.Sprintf("nbd%d", index) }

// find returns the device that has the volume.
func (h *Host) find(volume string) (index uint32, found bool, err error) {
	entries, err := os.ReadDir(h.Sysfs)
	if err != nil {
		return 0, false, err
	}
	for _, e := range entries {
		number, is := strings.CutPrefix(e.Name(), "nbd")
		n, err := strconv.ParseUint(number, 10, 32)
		if !is || err != nil {
			continue
		}
		name, err := os.ReadFile(filepath.Join(h.Sysfs, e.Name(), "backend"))
		if err != nil || strings.TrimSpace(string(name)) != backend(volume) {
			continue // most have none
		}
		if up, err := h.Kernel.Connected(uint32(n)); err != nil || up {
			return uint32(n), up, err
		}
	}
	return 0, false, nil
}

// size returns the bytes of a device.
func (h *Host) size(index uint32) (int64, error) {
	text, err := os.ReadFile(filepath.Join(h.Sysfs, deviceName(index), "size"))
	if err != nil {
		return 0, err
	}
	sectors, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return sectors * 512, err
}

// readOnly tells whether a device refuses writes.
func (h *Host) readOnly(index uint32) (bool, error) {
	text, err := os.ReadFile(filepath.Join(h.Sysfs, deviceName(index), "ro"))
	return strings.TrimSpace(string(text)) == "1", err
}

// lock makes the caller the keeper of a volume for as long as the file is open.
func (h *Host) lock(volume string) (*os.File, error) {
	if err := os.MkdirAll(h.Folder, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(h.lockPath(volume), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w, by another process", volume, ErrMapped)
		}
		return nil, fmt.Errorf("%s: %w", h.lockPath(volume), err)
	}
	return f, nil
}

// List returns what is mapped.
func (h *Host) List() (all []Status, err error) {
	names, err := filepath.Glob(filepath.Join(h.Folder, "*.json"))
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		s, ok, err := h.status(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if ok {
			all = append(all, s)
		}
	}
	return all, nil
}

func (h *Host) status(record string) (s Status, ok bool, err error) {
	text, err := os.ReadFile(record)
	if errors.Is(err, fs.ErrNotExist) {
		return s, false, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &s.Record)
	}
	if err != nil {
		return s, false, err
	}
	index, found, err := h.find(s.Volume)
	if err != nil || !found {
		return s, false, err
	}
	s.Index, s.Device = index, h.devicePath(index)
	s.Kept = h.kept(s.Volume)
	s.Size, err = h.size(index)
	return s, true, err
}

// kept tells whether a volume has a keeper.
func (h *Host) kept(volume string) bool {
	f, err := os.Open(h.lockPath(volume))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}

// Unmap ends a device, named by its volume, its path or its link. Everything written is flushed before; one in use is refused, unless by force.
func (h *Host) Unmap(ctx context.Context, name string, force bool) (Status, error) {
	all, err := h.List()
	if err != nil {
		return Status{}, err
	}
	for _, s := range all {
		if name != s.Volume && name != s.Device && name != h.linkPath(s.Volume) {
			continue
		}
		if !force {
			if err := flushUnused(s.Device, s.ReadOnly); err != nil {
				return s, err
			}
		}
		return s, h.disconnect(ctx, s)
	}
	return Status{}, fmt.Errorf("%s: %w", name, ErrNotMapped)
}

// flushUnused makes durable what a device has, if nobody uses it.
func flushUnused(path string, readOnly bool) error {
	mode := os.O_RDWR
	if readOnly {
		mode = os.O_RDONLY
	}
	f, err := os.OpenFile(path, mode|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("%s: %w", path, ErrInUse)
	}
	if err != nil {
		return err
	}
	if !readOnly {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

const (
	endTime  = 30 * time.Second
	pollEnds = 20 * time.Millisecond
)

// disconnect returns when the device is gone.
func (h *Host) disconnect(ctx context.Context, s Status) error {
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	if err := h.Kernel.Disconnect(s.Index); err != nil {
		return err
	}
	for {
		if up, err := h.Kernel.Connected(s.Index); err != nil || !up {
			return errors.Join(err, h.forget(s.Volume))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: the kernel has not given it up: %w", s.Device, ctx.Err())
		case <-time.After(pollEnds):
		}
	}
}

// forget removes what names a device that is gone.
func (h *Host) forget(volume string) error {
	var all []error
	for _, path := range []string{h.linkPath(volume), h.recordPath(volume)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

// remember writes a device's record.
func (h *Host) remember(r Record) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	path := h.recordPath(r.Volume)
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// link makes the link that is named after the volume.
func (h *Host) link(r Record) error {
	if err := os.MkdirAll(h.Links, 0o755); err != nil {
		return err
	}
	link := h.linkPath(r.Volume)
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(r.Device, link)
}
