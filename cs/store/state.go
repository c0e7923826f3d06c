package store

import (
	"encoding/binary"
	"fmt"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

// stateName is the database's file in the store's folder.
const stateName = "state.db"

// StateDB is the small durable state of a store: a map of keys to values, changed by transactions.
type StateDB interface {
	// Load calls visit for every entry, in the order of the keys. The slices are valid during the call.
	Load(visit func(key, value []byte) error) error
	// Commit makes all changes, in order, durably, or none. After an error it is not known which.
	Commit(changes []Change) error
	Close() error
}

// Change sets a key, or removes it when Value is nil.
type Change struct{ Key, Value []byte }

// openState opens the database of a store: bbolt's, or for a file system in memory a map that shares its fate.
func openState(fsys disk.FS, dir string, create bool) (StateDB, error) {
	if mem, ok := fsys.(*disk.Mem); ok {
		return openMemState(mem, dir, create)
	}
	return openBolt(dir+"/"+stateName, create)
}

// Keys begin with their kind.
const (
	kindMeta     = 'm'
	kindEpoch    = 'f'
	kindReplica  = 'c'
	kindActivity = 'a'
	kindVerified = 'v'
	kindIntent   = 'i'
	kindGone     = 'g'
)

// Keys of kindMeta.
const (
	metaFormat = "format" // u32
	metaBoot   = "boot"   // the operating system that used the store last
	metaClean  = "clean"  // 1: the store was closed; 0: it is, or was, in use

	metaJournal = "journal" // journalState; none: the store has no journal
)

// storeFormat is the version of the folder's layout and of the database. Part of the format.
const storeFormat = 1

func metaKey(name string) []byte { return append([]byte{kindMeta}, name...) }

func epochKey(file uint64) []byte { return binary.BigEndian.AppendUint64([]byte{kindEpoch}, file) }

func goneKey(file uint64) []byte { return binary.BigEndian.AppendUint64([]byte{kindGone}, file) }

func idKey(kind byte, id chunk.ID) []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64([]byte{kind}, id.File), id.Index)
}

func decodeID(key []byte) (chunk.ID, error) {
	if len(key) != 13 {
		return chunk.ID{}, fmt.Errorf("%w: key %x", ErrFormat, key)
	}
	return chunk.ID{File: binary.BigEndian.Uint64(key[1:]), Index: binary.BigEndian.Uint32(key[9:])}, nil
}

func encodeUint64(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

func decodeUint64(value []byte) (uint64, error) {
	if len(value) != 8 {
		return 0, fmt.Errorf("%w: number of %d bytes", ErrFormat, len(value))
	}
	return binary.LittleEndian.Uint64(value), nil
}

// removing is the state of a replica whose files are being deleted. It follows the exported states.
const removing State = 4

// record is what is durable of a replica.
//
//	0 u8 format (1 or 2)  1 u8 state  2 u8 flags: 1 damaged, 2 pulled  3 u8 zero  4 u32 blocks  8 u64 version
//	16 u64 since, in formats 2 and 3 only  16 or 24 u32 per layer, ascending
//
// and in format 3, which is written only where they say something that is not so by itself, instead of the layers
//
//	24 u32 old  28 u32 per layer: its number, ascending, and the number in the name and the header of its file
//
// Format 2 is written only if since is not 0.
type record struct {
	state   State
	damaged bool // never to be believed again: not even as the base of a rebuild
	pulled  bool // Syncing, and all that the source has is here
	blocks  uint32
	version uint64
	since   uint64 // the journal's records with lower numbers are none of this replica's
	layers  []uint32
	files   map[uint32]uint32 // of layers that have the file of one that they were merged with: that one's number
	old     uint32            // a file of that number is not needed any more, and is to be removed; 0: none is
}

// file is the number in the name of a layer's file.
func (r record) file(layer uint32) uint32 {
	if num, ok := r.files[layer]; ok {
		return num
	}
	return layer
}

// fileNums are the numbers in the names of all files that the replica may have.
func (r record) fileNums() (nums []uint32) {
	for _, l := range r.layers {
		nums = append(nums, r.file(l))
	}
	if r.old != 0 {
		nums = append(nums, r.old)
	}
	return nums
}

const (
	recordFormat = 1
	recordFixed  = 16
	recordSince  = 2 // the format with since
	sinceFixed   = 24
	recordFiles  = 3 // the format with names of files
	filesFixed   = 28
	flagDamaged  = 1
	flagPulled   = 2
	// maxLayers bounds a replica's layers.
	maxLayers = 4096
	maxRecord = filesFixed + 8*maxLayers
)

func (r record) encode() []byte {
	b := make([]byte, recordFixed, sinceFixed+4*len(r.layers))
	b[0], b[1] = recordFormat, byte(r.state)
	if r.damaged {
		b[2] |= flagDamaged
	}
	if r.pulled {
		b[2] |= flagPulled
	}
	binary.LittleEndian.PutUint32(b[4:], r.blocks)
	binary.LittleEndian.PutUint64(b[8:], r.version)
	if len(r.files) > 0 || r.old != 0 {
		return r.encodeFiles(b)
	}
	if r.since != 0 {
		b[0] = recordSince
		b = binary.LittleEndian.AppendUint64(b, r.since)
	}
	for _, l := range r.layers {
		b = binary.LittleEndian.AppendUint32(b, l)
	}
	return b
}

// encodeFiles ends a record of format 3.
func (r record) encodeFiles(b []byte) []byte {
	b[0] = recordFiles
	b = binary.LittleEndian.AppendUint64(b, r.since)
	b = binary.LittleEndian.AppendUint32(b, r.old)
	for _, l := range r.layers {
		b = binary.LittleEndian.AppendUint32(b, l)
		b = binary.LittleEndian.AppendUint32(b, r.file(l))
	}
	return b
}

func decodeRecord(b []byte) (record, error) {
	if len(b) < recordFixed || len(b)%4 != 0 || len(b) > maxRecord {
		return record{}, fmt.Errorf("%w: record of %d bytes", ErrFormat, len(b))
	}
	r := record{state: State(b[1]), damaged: b[2]&flagDamaged != 0, pulled: b[2]&flagPulled != 0,
		blocks: binary.LittleEndian.Uint32(b[4:]), version: binary.LittleEndian.Uint64(b[8:])}
	fixed := recordFixed
	known := b[0] == recordFormat
	switch {
	case b[0] == recordSince && len(b) >= sinceFixed:
		r.since, fixed = binary.LittleEndian.Uint64(b[16:]), sinceFixed
		known = r.since != 0
	case b[0] == recordFiles && len(b) >= filesFixed && (len(b)-filesFixed)%8 == 0:
		r.since, r.old, fixed = binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint32(b[24:]), filesFixed
		known = true
	}
	if !known || b[2]&^(flagDamaged|flagPulled) != 0 || b[3] != 0 || r.state < InSync || r.state > removing ||
		!chunk.ValidBlocks(r.blocks) {
		return record{}, fmt.Errorf("%w: record % x", ErrFormat, b[:recordFixed])
	}
	size := 4
	if fixed == filesFixed {
		size, r.files = 8, map[uint32]uint32{}
	}
	for b = b[fixed:]; len(b) > 0; b = b[size:] {
		l := binary.LittleEndian.Uint32(b)
		if n := len(r.layers); l == 0 || n > 0 && r.layers[n-1] >= l {
			return record{}, fmt.Errorf("%w: layer %d after %v", ErrFormat, l, r.layers)
		}
		r.layers = append(r.layers, l)
		if size == 4 {
			continue
		}
		if num := binary.LittleEndian.Uint32(b[4:]); num == 0 || num > l {
			return record{}, fmt.Errorf("%w: layer %d in file %d", ErrFormat, l, num)
		} else if num != l {
			r.files[l] = num
		}
	}
	return r, nil
}

// saved is all that a database holds.
type saved struct {
	format   uint32
	boot     string
	clean    bool
	journal  *journalState // nil: none
	epochs   map[uint64]uint64
	replicas map[chunk.ID]record
	activity map[chunk.ID]Suspicion
	verified map[chunk.ID]int64
	intents  map[chunk.ID]intent
	gone     map[uint64]LayerSet
}

func loadState(db StateDB) (*saved, error) {
	s := &saved{epochs: map[uint64]uint64{}, replicas: map[chunk.ID]record{}, activity: map[chunk.ID]Suspicion{},
		verified: map[chunk.ID]int64{}, intents: map[chunk.ID]intent{}, gone: map[uint64]LayerSet{}}
	if err := db.Load(s.visit); err != nil {
		return nil, err
	}
	switch s.format {
	case storeFormat:
	case 0:
		return nil, fmt.Errorf("%w: it does not say of which", ErrFormat)
	default:
		return nil, fmt.Errorf("%w: %w: version %d", ErrFormat, ErrVersion, s.format)
	}
	return s, nil
}

func (s *saved) visit(key, value []byte) error {
	if len(key) == 0 {
		return fmt.Errorf("%w: empty key", ErrFormat)
	}
	switch key[0] {
	case kindMeta:
		return s.visitMeta(string(key[1:]), value)
	case kindEpoch, kindGone:
		return s.visitFile(key, value)
	case kindReplica, kindActivity, kindVerified, kindIntent:
		return s.visitChunk(key, value)
	}
	return fmt.Errorf("%w: key %x", ErrFormat, key)
}

func (s *saved) visitFile(key, value []byte) (err error) {
	if len(key) != 9 {
		return fmt.Errorf("%w: key %x", ErrFormat, key)
	}
	file := binary.BigEndian.Uint64(key[1:])
	if key[0] == kindGone {
		s.gone[file], err = decodeGone(value)
		return err
	}
	s.epochs[file], err = decodeUint64(value)
	return err
}

func (s *saved) visitMeta(name string, value []byte) error {
	switch name {
	case metaFormat:
		if len(value) != 4 {
			return fmt.Errorf("%w: version of %d bytes", ErrFormat, len(value))
		}
		s.format = binary.LittleEndian.Uint32(value)
	case metaBoot:
		s.boot = string(value)
	case metaClean:
		s.clean = string(value) == "\x01"
	case metaJournal:
		var err error
		s.journal, err = decodeJournal(value)
		return err
	default:
		return fmt.Errorf("%w: entry %q", ErrFormat, name)
	}
	return nil
}

func (s *saved) visitChunk(key, value []byte) error {
	id, err := decodeID(key)
	if err != nil {
		return err
	}
	switch key[0] {
	case kindVerified:
		when, err := decodeUint64(value)
		s.verified[id] = int64(when)
		return err
	case kindIntent:
		in, err := decodeIntent(id, value)
		s.intents[id] = in
		return about(id, err)
	case kindActivity:
		if len(value) != 1 || value[0] > byte(MachineDied) {
			return fmt.Errorf("%w: activity % x of chunk %s", ErrFormat, value, id)
		}
		s.activity[id] = Suspicion(value[0])
		return nil
	}
	s.replicas[id], err = decodeRecord(value)
	return about(id, err)
}
