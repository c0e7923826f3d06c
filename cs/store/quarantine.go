package store

import (
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"strings"
	"sync"
	"time"

	"pstorage/cs/chunk"
)

// quarantineName is the folder of what was set aside. Part of the format, as are the names in it:
//
//	quarantine/FFFFFFFFFFFFFFFF.IIIIIIII.NNNNNNNN.YYYYMMDDTHHMMSSZ[-K]
//
// in hexadecimal: F the file id, I the index, N the layer; the date is when it was set aside, in UTC; K tells two of a second apart.
// They are of package chunk, belong to no replica, and may be deleted at any time.
const (
	quarantineName = "quarantine"
	quarantineDate = "20060102T150405Z"
)

// What is set aside is bounded: the oldest makes way.
const (
	maxAsideFiles = 64
	maxAsideBytes = 1 << 30
)

// quarantine is where files of bad replicas go.
type quarantine struct {
	mu sync.Mutex // one at a time
}

// Aside is a file that was set aside.
type Aside struct {
	Name  string // in the store's folder
	ID    chunk.ID
	Layer uint32
	When  time.Time
}

func asideName(id chunk.ID, layer uint32, date string) string {
	return fmt.Sprintf("%s/%016x.%08x.%08x.%s", quarantineName, id.File, id.Index, layer, date)
}

// parseAside reads a name in the folder.
func parseAside(base string) (a Aside, ok bool) {
	rest, date, found := cutLast(base, ".")
	if !found || len(rest) != len("FFFFFFFFFFFFFFFF.IIIIIIII.NNNNNNNN") {
		return Aside{}, false
	}
	if _, err := fmt.Sscanf(rest, "%016x.%08x.%08x", &a.ID.File, &a.ID.Index, &a.Layer); err != nil {
		return Aside{}, false
	}
	day, _, _ := strings.Cut(date, "-")
	when, err := time.Parse(quarantineDate, day)
	a.Name, a.When = quarantineName+"/"+base, when
	return a, err == nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// asides lists what was set aside in a store's folder, oldest first. Other files there are left alone.
func asides(fsys interface {
	List(name string) ([]string, error)
}, dir string) ([]Aside, error) {
	names, err := fsys.List(dir + "/" + quarantineName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var all []Aside
	for _, n := range names {
		if a, ok := parseAside(n); ok {
			all = append(all, a)
		}
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].When.Before(all[j].When) })
	return all, err
}

// setAside moves the files of a bad replica out of the way, for inspection. What cannot be moved, or has no room, stays where it is.
func (s *Store) setAside(id chunk.ID, layers []uint32) {
	s.aside.mu.Lock()
	defer s.aside.mu.Unlock()
	for _, l := range layers {
		if err := s.setLayerAside(id, l); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.logger.Warn("a bad replica is not kept for inspection", "chunk", id.String(), "layer", l, "error", err)
		}
	}
}

func (s *Store) setLayerAside(id chunk.ID, layer uint32) error {
	from := s.layerName(id, layer)
	size, err := s.fs.Allocated(from)
	if err != nil {
		return err
	}
	if _, free, err := s.space.ask(); err != nil || free == 0 {
		return errors.Join(err, ErrNoSpace)
	}
	if err := s.makeRoomAside(size); err != nil {
		return err
	}
	date := time.Now().UTC().Format(quarantineDate)
	to := asideName(id, layer, date)
	for k := 2; ; k++ {
		if _, err := s.fs.Allocated(s.dir + "/" + to); err != nil {
			break
		}
		to = asideName(id, layer, fmt.Sprintf("%s-%d", date, k))
	}
	if err := s.fs.Rename(from, s.dir+"/"+to); err != nil {
		return err
	}
	s.logger.Info("a bad replica was set aside", "chunk", id.String(), "layer", layer, "file", to)
	return s.fs.SyncDir(s.dir + "/" + quarantineName)
}

// makeRoomAside deletes the oldest until one more file has room.
func (s *Store) makeRoomAside(size int64) error {
	if size > maxAsideBytes {
		return fmt.Errorf("%w: it has %d bytes, at most %d are kept", ErrNoSpace, size, maxAsideBytes)
	}
	if err := s.fs.MkdirAll(s.dir + "/" + quarantineName); err != nil {
		return err
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return err
	}
	all, err := asides(s.fs, s.dir)
	if err != nil {
		return err
	}
	total, sizes := size, make([]int64, len(all))
	for i, a := range all {
		sizes[i], _ = s.fs.Allocated(s.dir + "/" + a.Name)
		total += sizes[i]
	}
	for i := 0; i < len(all) && (len(all)-i >= maxAsideFiles || total > maxAsideBytes); i++ {
		if err := s.fs.Remove(s.dir + "/" + all[i].Name); err != nil {
			return err
		}
		total -= sizes[i]
	}
	return nil
}
