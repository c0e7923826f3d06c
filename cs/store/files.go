package store

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sync"

	"pstorage/cs/chunk"
)

// chunksName is the folder of the chunk files in the store's folder. Part of the format, as are the names below it:
//
//	chunks/LL/FFFFFFFFFFFFFFFF-GGGGGG/IIIIIIII.NNNNNNNN
//
// in hexadecimal: LL the low byte of the file id F, G the index without its low byte, I the index, N the layer. So a folder has
// at most 256 chunks of one file.
const chunksName = "chunks"

func (s *Store) layerName(id chunk.ID, layer uint32) string {
	return s.dir + "/" + layerName(id, layer)
}

func layerName(id chunk.ID, layer uint32) string {
	return fmt.Sprintf("%s/%08x.%08x", folderName(id), id.Index, layer)
}

func folderName(id chunk.ID) string {
	return fmt.Sprintf("%s/%02x/%016x-%06x", chunksName, byte(id.File), id.File, id.Index>>8)
}

// folders knows which folders are durable. Making files in one and taking it away exclude each other.
type folders struct {
	use   sync.RWMutex
	mu    sync.Mutex
	known map[string]bool
}

// makeFolder makes the folder of a chunk, durably. The caller holds folders.use shared.
func (s *Store) makeFolder(id chunk.ID) (string, error) {
	dir := s.dir + "/" + folderName(id)
	s.folders.mu.Lock()
	defer s.folders.mu.Unlock()
	if s.folders.known[dir] {
		return dir, nil
	}
	if err := s.fs.MkdirAll(dir); err != nil {
		return "", err
	}
	// Also if they were there: an earlier process may have ended before it synced them.
	for _, d := range []string{path.Dir(dir), path.Dir(path.Dir(dir))} {
		if err := s.fs.SyncDir(d); err != nil {
			return "", err
		}
	}
	s.folders.known[dir] = true
	return dir, nil
}

// makeFile makes the file of a layer, empty; the file is durable when makeFile returns, its name is not. It returns the folder, to
// be synced. A file that is there already belongs to no replica: a crash has left it.
func (s *Store) makeFile(h chunk.Header) (string, error) {
	s.folders.use.RLock()
	defer s.folders.use.RUnlock()
	dir, err := s.makeFolder(h.ID)
	if err != nil {
		return "", err
	}
	name := s.layerName(h.ID, h.Layer)
	f, err := s.fs.Create(name)
	if errors.Is(err, fs.ErrExist) {
		if err = s.fs.Remove(name); err == nil {
			f, err = s.fs.Create(name)
		}
	}
	if err != nil {
		return "", err
	}
	p := make([]byte, chunk.HeaderSize)
	h.Encode(p)
	if _, err = f.WriteAt(p, 0); err == nil {
		err = f.Truncate(chunk.FileSize(h.Blocks))
	}
	if err == nil {
		err = f.Sync()
	}
	return dir, errors.Join(err, f.Close())
}

// removeFiles deletes the files with the numbers of these layers, durably, and their folder if it is empty then.
func (s *Store) removeFiles(id chunk.ID, layers []uint32) error {
	s.folders.use.Lock()
	defer s.folders.use.Unlock()
	for _, l := range layers {
		if err := s.fs.Remove(s.layerName(id, l)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	dir := s.dir + "/" + folderName(id)
	names, err := s.fs.List(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(names) > 0:
		return s.fs.SyncDir(dir)
	}
	s.folders.mu.Lock()
	delete(s.folders.known, dir)
	s.folders.mu.Unlock()
	if err := s.fs.Remove(dir); err != nil {
		return err
	}
	return s.fs.SyncDir(path.Dir(dir))
}

// addLayer makes the layer that a request asks for, durably, if it may.
func (s *Store) addLayer(r *replica, a Access, p span) error {
	r.ctl.Lock()
	defer r.ctl.Unlock()
	r.mu.RLock()
	err := r.check(a, useWrite)
	if err == nil && !p.in(r.blocks) || a.Layer == 0 {
		err = ErrInvalid
	}
	there := r.layer(a.Layer) != nil
	r.mu.RUnlock()
	if err != nil || there {
		return err
	}
	rec := r.record()
	if slices.Contains(rec.fileNums(), a.Layer) {
		return fmt.Errorf("%w: another layer has the file of layer %d", ErrInvalid, a.Layer)
	}
	if len(rec.layers) >= maxLayers {
		return fmt.Errorf("%w: more than %d layers", ErrInvalid, maxLayers)
	}
	rec.layers = withLayer(rec.layers, a.Layer)
	dir, err := s.makeFile(chunk.Header{ID: r.id, Layer: a.Layer, Blocks: r.blocks})
	if err == nil {
		err = s.fs.SyncDir(dir)
	}
	if err != nil {
		return diskError(err)
	}
	if err := s.db.commit(Change{Key: idKey(kindReplica, r.id), Value: rec.encode()}); err != nil {
		return err
	}
	s.space.used.Add(chunk.HeaderSize)
	r.setLayers(rec.layers)
	return nil
}

// setLayers makes the mirror of the layers what has become durable, keeping those that stay.
func (r *replica) setLayers(nums []uint32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	layers := make([]*layer, 0, len(nums))
	for _, num := range nums {
		l := r.layer(num)
		if l == nil {
			l = &layer{r: r, num: num, file: num}
		}
		layers = append(layers, l)
	}
	r.layers = layers
}

// withLayer returns ascending layers with one more.
func withLayer(layers []uint32, num uint32) []uint32 {
	i := 0
	for i < len(layers) && layers[i] < num {
		i++
	}
	if i < len(layers) && layers[i] == num {
		return layers
	}
	return append(append(append([]uint32{}, layers[:i]...), num), layers[i:]...)
}
