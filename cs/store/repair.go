package store

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

// Repaired is what Repair has done.
type Repaired struct {
	Rebuilt int    // replicas whose records were made anew from their files, the database being lost
	Kept    string // the name under which the lost database is kept
	Marked  int    // replicas marked as damaged: the cluster replaces them
	Mended  int    // files whose header or size was set right
	Aside   int    // files of no replica, set aside
	Removed int    // and those without data, removed
}

// RepairOptions of Repair.
type RepairOptions struct {
	// InSync has replicas whose records were lost claim to be in sync, but suspect, where they would be stale: a last resort, for when no
	// other server has anything better. Some may lack writes that were flushed: those in a journal, and those of replicas that had failed.
	InSync bool
}

// Repair does for a damaged store that is not in use what can be done without the cluster, and never takes away what could be read before:
//
//   - A database that cannot be read is made anew from the headers of the files. What they were is not known any more, so they claim nothing: stale
//     and suspect, they are but the base of a rebuild, of which every block is verified.
//   - A file of the wrong size whose table is whole gets its size back, and a header that does not decode is written anew, where the
//     blocks match their sums and so prove whose they are.
//   - Replicas with damage are marked: they serve what is good in them, are reported when the server starts, and are no base of a rebuild.
//   - Files of no replica are removed if they have no data, else set aside.
//
// report is called for each thing done.
func Repair(fsys disk.FS, dir string, o RepairOptions, report func(string)) (done Repaired, err error) {
	was, err := readState(fsys, dir)
	r := &repairer{fs: fsys, dir: dir, report: report, done: &done}
	switch {
	case errors.Is(err, ErrVersion):
		return done, fmt.Errorf("repair %s: %w", dir, err)
	case errors.Is(err, ErrFormat):
		r.say("the database cannot be read: %v", err)
		was, err = r.rebuild(o)
	}
	if err == nil {
		err = r.replicas(was)
	}
	if err == nil {
		err = r.strays(was)
	}
	if err != nil {
		return done, fmt.Errorf("repair %s: %w", dir, err)
	}
	return done, nil
}

type repairer struct {
	fs     disk.FS
	dir    string
	report func(string)
	done   *Repaired
}

func (r *repairer) say(format string, args ...any) { r.report(fmt.Sprintf(format, args...)) }

// rebuild makes a database from what the files say of themselves.
func (r *repairer) rebuild(o RepairOptions) (*saved, error) {
	was := &saved{format: storeFormat, epochs: map[uint64]uint64{}, replicas: map[chunk.ID]record{},
		activity: map[chunk.ID]Suspicion{}, verified: map[chunk.ID]int64{}, gone: map[uint64]LayerSet{}}
	names, err := r.files(chunksName)
	if err != nil {
		return nil, err
	}
	state, unusable := Stale, map[chunk.ID]bool{}
	if o.InSync {
		state = InSync
	}
	for _, name := range names {
		h, ok := r.identify(name)
		if id, _, named := parseLayerName(name); named && !ok {
			unusable[id] = true // what else is here of the chunk is not all of it
		}
		rec, known := was.replicas[h.ID]
		if !ok || known && rec.blocks != h.Blocks || len(rec.layers) == maxLayers {
			continue // for strays
		}
		was.replicas[h.ID] = record{state: state, blocks: h.Blocks, layers: withLayer(rec.layers, h.Layer)}
		was.activity[h.ID] = MachineDied
	}
	for id := range unusable {
		if rec, ok := was.replicas[id]; ok {
			rec.state = Stale
			was.replicas[id] = rec
		}
	}
	kept, err := replaceState(r.fs, r.dir, was.entries())
	if err != nil {
		return nil, err
	}
	r.done.Rebuilt, r.done.Kept = len(was.replicas), kept
	r.say("database made anew: %d replicas, %s", len(was.replicas), state)
	return was, nil
}

// identify tells what a file is, if it is whole in form and has the name that goes with it.
func (r *repairer) identify(name string) (h chunk.Header, ok bool) {
	f, err := r.fs.Open(r.dir + "/" + name)
	if err != nil {
		return h, false
	}
	defer f.Close()
	p := disk.Buffer(chunk.HeaderSize)
	if _, err := f.ReadAt(p, 0); err != nil {
		return h, false
	}
	h, err = chunk.DecodeHeader(p)
	if err != nil || h.Layer == 0 || layerName(h.ID, h.Layer) != name {
		return h, false
	}
	h, err = checkHeader(f, h)
	return h, err == nil
}

// files lists those below a folder of the store, with its name before theirs.
func (r *repairer) files(folder string) (all []string, err error) {
	names, err := r.fs.List(r.dir + "/" + folder)
	for _, n := range names {
		name := path.Clean(folder + "/" + n)
		if !strings.HasSuffix(n, "/") {
			all = append(all, name)
			continue
		}
		below, err := r.files(name)
		if err != nil {
			return nil, err
		}
		all = append(all, below...)
	}
	return all, err
}

// replicas mends files, and marks replicas that have damage left.
func (r *repairer) replicas(was *saved) error {
	marked := 0
	for _, id := range slices.SortedFunc(maps.Keys(was.replicas), compareIDs) {
		rec := was.replicas[id]
		if rec.state == removing {
			continue
		}
		for _, l := range rec.layers {
			if err := r.layer(chunk.Header{ID: id, Layer: rec.file(l), Blocks: rec.blocks}); err != nil {
				return err
			}
		}
		damage := damageOf(r.fs, r.dir, was, id)
		if damage == "" || rec.damaged {
			continue
		}
		rec.damaged = true
		was.replicas[id] = rec
		marked++
		r.say("chunk %s is marked as damaged: %s", id, damage)
	}
	if marked == 0 {
		return nil
	}
	r.done.Marked = marked
	_, err := replaceState(r.fs, r.dir, was.entries())
	return err
}

// damageOf tells what is damaged of a replica; "": nothing. Blocks that a crash may have torn are no damage.
func damageOf(fsys disk.FS, dir string, was *saved, id chunk.ID) (what string) {
	c := &checker{fs: fsys, dir: dir, was: was, files: map[string]bool{}, report: func(p Problem) {
		if p.Severity == Damage && what == "" && p.Layer != 0 {
			what = fmt.Sprintf("layer %d: %s", p.Layer, p.What)
		}
	}}
	c.replica(id, was.replicas[id])
	return what
}

// layer sets the size and the header of a file right, if that is safe.
func (r *repairer) layer(h chunk.Header) error {
	f, err := r.fs.Open(r.dir + "/" + layerName(h.ID, h.Layer))
	if err != nil {
		return nil // nothing to mend: the replica is marked
	}
	defer f.Close()
	if _, err := checkHeader(f, h); err == nil {
		return nil
	}
	did, err := mendFile(f, h)
	if did != "" {
		r.done.Mended++
		r.say("chunk %s, layer %d: %s", h.ID, h.Layer, did)
	}
	return err
}

// mendFile sets the size right if the table is there: blocks beyond the end then do not match their sums. A table that was cut off is left as it is: what
// it lacks would read as zeros.
func mendFile(f disk.File, h chunk.Header) (did string, err error) {
	size, err := f.Size()
	if err != nil || size < chunk.DataOffset(h.Blocks, 0) {
		return "", nil
	}
	h, foreign, broken := headerOf(f, h)
	if foreign {
		return "", nil
	}
	codes, err := readTable(f, h)
	if err != nil {
		return "", nil
	}
	if broken && !proven(f, h, codes) {
		return "", nil
	}
	if size != chunk.FileSize(h.Blocks) {
		if err := f.Truncate(chunk.FileSize(h.Blocks)); err != nil {
			return "", err
		}
		did = fmt.Sprintf("its size was %d bytes, not %d", size, chunk.FileSize(h.Blocks))
	}
	if broken {
		p := make([]byte, chunk.HeaderSize)
		h.Encode(p)
		if _, err := f.WriteAt(p, 0); err != nil {
			return did, err
		}
		did = strings.TrimPrefix(did+"; its header was written anew", "; ")
	}
	return did, f.Sync()
}

// headerOf tells whether a file is another's, or cannot say whose it is.
func headerOf(f disk.File, want chunk.Header) (h chunk.Header, foreign, broken bool) {
	p := disk.Buffer(chunk.HeaderSize)
	if _, err := f.ReadAt(p, 0); err != nil {
		return want, true, false
	}
	have, err := chunk.DecodeHeader(p)
	if err != nil {
		return want, false, true
	}
	want.Lossy = have.Lossy
	return want, have != want, false
}

// proven tells whether a file has data, and all of it matches its sums, which are the chunk's own.
func proven(f disk.File, h chunk.Header, codes []uint32) bool {
	some := slices.ContainsFunc(codes, chunk.HasData)
	return some && len(badBlocks(f, h, codes)) == 0
}

// strays removes or sets aside files that belong to no replica. What is no chunk file by its name is left alone.
func (r *repairer) strays(was *saved) error {
	names, err := r.files(chunksName)
	if err != nil {
		return err
	}
	ours := map[string]bool{}
	for id, rec := range was.replicas {
		for _, num := range rec.fileNums() {
			ours[layerName(id, num)] = true
		}
	}
	for _, name := range names {
		if id, layer, ok := parseLayerName(name); ok && !ours[name] {
			if err := r.stray(name, id, layer); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *repairer) stray(name string, id chunk.ID, layer uint32) error {
	if r.isEmpty(name) {
		r.done.Removed++
		r.say("%s belongs to no replica and has no data: removed", name)
		return errors.Join(r.fs.Remove(r.dir+"/"+name), r.fs.SyncDir(path.Dir(r.dir+"/"+name)))
	}
	to := asideName(id, layer, time.Now().UTC().Format(quarantineDate))
	if err := r.fs.MkdirAll(r.dir + "/" + quarantineName); err != nil {
		return err
	}
	if _, err := r.fs.Allocated(r.dir + "/" + to); err == nil {
		return nil // one of this second has the name: another time
	}
	if err := r.fs.Rename(r.dir+"/"+name, r.dir+"/"+to); err != nil {
		return err
	}
	r.done.Aside++
	r.say("%s belongs to no replica: it is %s now", name, to)
	return errors.Join(r.fs.SyncDir(r.dir), r.fs.SyncDir(r.dir+"/"+quarantineName), r.fs.SyncDir(path.Dir(r.dir+"/"+name)))
}

// isEmpty tells whether a file is a chunk file without data.
func (r *repairer) isEmpty(name string) bool {
	f, err := r.fs.Open(r.dir + "/" + name)
	if err != nil {
		return false
	}
	defer f.Close()
	h, codes, err := readLayer(f)
	return err == nil && layerName(h.ID, h.Layer) == name && slices.Max(codes) == chunk.Absent
}

// parseLayerName reads the name of a chunk file in the store's folder.
func parseLayerName(name string) (id chunk.ID, layer uint32, ok bool) {
	var low byte
	var high uint32
	n, err := fmt.Sscanf(name, chunksName+"/%02x/%016x-%06x/%08x.%08x", &low, &id.File, &high, &id.Index, &layer)
	return id, layer, err == nil && n == 5 && layerName(id, layer) == name
}
