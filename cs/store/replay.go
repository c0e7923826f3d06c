package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
	"pstorage/cs/journal"
)

// replayFiles bounds the files open during a replay.
const replayFiles = 64

// journalState is what a store knows of its journal.
//
//	0 u8 format (1)  1 [16] id  17 u64 run  25 folder
type journalState struct {
	id  journal.ID
	run uint64
	dir string
}

const (
	journalFormat = 1
	journalFixed  = 25
)

func (j journalState) encode() []byte {
	b := append([]byte{journalFormat}, j.id[:]...)
	return append(binary.LittleEndian.AppendUint64(b, j.run), j.dir...)
}

func decodeJournal(b []byte) (*journalState, error) {
	if len(b) <= journalFixed || b[0] != journalFormat {
		return nil, fmt.Errorf("%w: write journal % x", ErrFormat, b)
	}
	j := &journalState{run: binary.LittleEndian.Uint64(b[17:]), dir: string(b[journalFixed:])}
	copy(j.id[:], b[1:])
	return j, nil
}

// openJournal opens the journal that the store has, if any, before anything is changed.
func (s *Store) openJournal(was *saved) error {
	if was.journal == nil {
		return nil
	}
	w := was.journal
	s.keeper = newKeeper()
	j, err := journal.Open(s.fs, w.dir, w.id, w.run, journal.Options{Full: s.keeper.wanted, Failed: s.journalFailed})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrJournal, err)
	}
	s.journal = j
	return nil
}

// recoverJournal brings the chunk files to what the journal says, durably, and empties it. was is changed as the state is.
func (s *Store) recoverJournal(was *saved, db StateDB) error {
	if s.journal == nil {
		return nil
	}
	p := &replaying{s: s, was: was, open: map[layerKey]*replayFile{}, bad: map[chunk.ID]error{}}
	n, err := s.journal.Replay(p.apply)
	if err == nil {
		err = p.closeAll()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrJournal, err)
	}
	if err := db.Commit(p.condemned()); err != nil {
		return err
	}
	if err := s.journal.Begin(); err != nil {
		return fmt.Errorf("%w: %w", ErrJournal, err)
	}
	was.journal.run = s.journal.Run()
	if n > 0 {
		s.logger.Info("write journal replayed", "records", n, "applied", p.applied, "failed", len(p.bad))
	}
	return db.Commit([]Change{{Key: metaKey(metaJournal), Value: was.journal.encode()}})
}

type layerKey struct {
	id  chunk.ID
	num uint32
}

type replayFile struct {
	f disk.File
	h chunk.Header
}

// replaying writes records to chunk files. A replica whose files cannot take them has failed; the others go on.
type replaying struct {
	s       *Store
	was     *saved
	open    map[layerKey]*replayFile
	order   []layerKey // of open, longest ago first
	bad     map[chunk.ID]error
	applied uint64
}

// wanted tells whether a record is still about the replica that is here (the package comment says why).
func (p *replaying) wanted(r *journal.Record) bool {
	rec, here := p.was.replicas[r.ID]
	_, open := p.was.activity[r.ID]
	return here && open && p.bad[r.ID] == nil && (rec.state == InSync || rec.state == Syncing && rec.pulled) && r.Seq >= rec.since &&
		slices.Contains(rec.layers, r.Layer)
}

func (p *replaying) apply(r *journal.Record) error {
	if !p.wanted(r) {
		return nil
	}
	f, err := p.file(layerKey{r.ID, r.Layer})
	if err == nil {
		err = f.apply(r)
	}
	switch {
	case err == nil:
		p.applied++
	case errors.Is(err, disk.ErrNoSpace), errors.Is(err, disk.ErrDead):
		return about(r.ID, err) // nothing is lost yet: with room, it can be done again
	default:
		p.bad[r.ID] = err
	}
	return nil
}

func (p *replaying) file(key layerKey) (*replayFile, error) {
	if f := p.open[key]; f != nil {
		return f, nil
	}
	if len(p.order) == replayFiles {
		if err := p.closeOldest(); err != nil {
			return nil, err
		}
	}
	rec := p.was.replicas[key.id]
	f, err := p.s.fs.Open(p.s.layerName(key.id, rec.file(key.num)))
	if err != nil {
		return nil, err
	}
	h, err := checkHeader(f, chunk.Header{ID: key.id, Layer: rec.file(key.num), Blocks: rec.blocks})
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	p.open[key] = &replayFile{f, h}
	p.order = append(p.order, key)
	return p.open[key], nil
}

// apply stores a record's blocks: data before codes, holes after them, as ever.
func (f *replayFile) apply(r *journal.Record) error {
	if uint64(r.First)+uint64(r.Blocks) > uint64(f.h.Blocks) {
		return fmt.Errorf("%w: record %d of the write journal is about blocks %d+%d of %d", ErrFormat, r.Seq, r.First, r.Blocks, f.h.Blocks)
	}
	codes := r.Sums
	if codes == nil {
		codes = slices.Repeat([]uint32{r.Code}, int(r.Blocks))
	} else if _, err := f.f.WriteAt(r.Data, chunk.DataOffset(f.h.Blocks, r.First)); err != nil {
		return err
	}
	if err := f.admitLost(r); err != nil {
		return err
	}
	raw := chunk.EncodeCodes(make([]byte, len(codes)*chunk.CodeSize), codes)
	if _, err := f.f.WriteAt(raw, chunk.CodeOffset(r.First)); err != nil {
		return err
	}
	if r.Sums == nil {
		return f.f.Punch(chunk.DataOffset(f.h.Blocks, r.First), int64(r.Blocks)*chunk.BlockSize)
	}
	return nil
}

// admitLost makes the file one in which blocks may be lost, if they are to be.
func (f *replayFile) admitLost(r *journal.Record) error {
	if r.Sums != nil || r.Code != chunk.Lost || f.h.Lossy {
		return nil
	}
	f.h.Lossy = true
	return writeLossy(f.f, f.h)
}

// closeOldest syncs and closes the file that was opened longest ago. One that does not sync has failed (R8).
func (p *replaying) closeOldest() error {
	key := p.order[0]
	p.order = p.order[1:]
	f := p.open[key].f
	delete(p.open, key)
	err := errors.Join(f.Sync(), f.Close())
	if errors.Is(err, disk.ErrDead) || errors.Is(err, fs.ErrClosed) {
		return err
	}
	if err != nil && p.bad[key.id] == nil {
		p.bad[key.id] = err
	}
	return nil
}

func (p *replaying) closeAll() error {
	for len(p.order) > 0 {
		if err := p.closeOldest(); err != nil {
			return err
		}
	}
	return nil
}

// condemned is the change that makes those stale that lack what the journal had for them.
func (p *replaying) condemned() (changes []Change) {
	for id, err := range p.bad {
		p.s.logger.Error("replica cannot take what the write journal has for it", "chunk", id.String(), "error", err)
		rec := p.was.replicas[id]
		rec.state, rec.damaged, rec.pulled = Stale, true, false
		p.was.replicas[id] = rec
		changes = append(changes, Change{Key: idKey(kindReplica, id), Value: rec.encode()})
	}
	return changes
}
