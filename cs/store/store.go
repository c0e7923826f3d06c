package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"sync"
	"sync/atomic"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
	"pstorage/cs/journal"
	"pstorage/meta/rules"
)

// Store is the Engine on one disk.
type Store struct {
	fs      disk.FS
	dir     string
	options Options
	logger  *slog.Logger

	db        *committer
	attendant *attendant
	space     space
	cache     cache
	folders   folders
	aside     quarantine
	turn      atomic.Uint64 // of Due
	foldLast  int
	syncs     chan struct{}    // one element per sync under way
	journal   *journal.Journal // nil: none
	keeper    *keeper
	kept      atomic.Int64  // blocks kept by rebuilds
	intents   chan struct{} // one element per intent in the database

	shards  [shardCount]shard
	filesMu sync.RWMutex
	files   map[uint64]*file

	closed  atomic.Bool
	unclean atomic.Bool // something that must be durable is not: the store is not closed clean
	measure sync.WaitGroup
}

var _ Engine = (*Store)(nil)

// Create makes an empty store in a folder, which it makes too.
func Create(fsys disk.FS, dir string) error {
	if err := fsys.MkdirAll(dir + "/" + chunksName); err != nil {
		return fmt.Errorf("create store in %s: %w", dir, err)
	}
	db, err := openState(fsys, dir, true)
	if err != nil {
		return fmt.Errorf("create store in %s: %w", dir, err)
	}
	err = db.Commit([]Change{
		{Key: metaKey(metaFormat), Value: binary.LittleEndian.AppendUint32(nil, storeFormat)},
		{Key: metaKey(metaClean), Value: []byte{1}},
	})
	if err = errors.Join(err, db.Close()); err == nil {
		err = errors.Join(fsys.SyncDir(dir), fsys.SyncDir(path.Dir(dir)))
	}
	if err != nil {
		return fmt.Errorf("create store in %s: %w", dir, err)
	}
	return nil
}

// Open opens the store in a folder. Replicas that were open when the store was last used are suspect unless it was closed (R6).
func Open(fsys disk.FS, dir string, o Options) (*Store, error) {
	db, err := openState(fsys, dir, false)
	if err != nil {
		return nil, fmt.Errorf("open store in %s: %w", dir, err)
	}
	s, err := open(fsys, dir, o, db)
	if err != nil {
		return nil, fmt.Errorf("open store in %s: %w", dir, errors.Join(err, db.Close()))
	}
	return s, nil
}

func open(fsys disk.FS, dir string, o Options, db StateDB) (*Store, error) {
	boot, err := fsys.Boot()
	if err != nil {
		return nil, err
	}
	was, err := loadState(db)
	if err != nil {
		return nil, err
	}
	s := newStore(fsys, dir, o)
	if err := s.openJournal(was); err != nil {
		return nil, err
	}
	if err = db.Commit(was.begin(boot, o.LeftOut)); err == nil {
		err = s.recoverJournal(was, db)
	}
	if err == nil {
		err = s.recoverIntents(was, db)
	}
	if err != nil {
		if s.journal != nil {
			err = errors.Join(err, s.journal.Close())
		}
		return nil, err
	}
	s.fill(was)
	s.db = newCommitter(db, s.stateFailed)
	go s.attendant.run(s.serveTrouble)
	if s.journal != nil {
		go s.keepJournal()
	}
	if err := s.finishRemovals(); err != nil {
		s.logger.Warn("cannot finish deleting replicas", "error", err)
	}
	s.removeOld()
	s.measure.Go(s.measureUse)
	s.repeatDamage()
	return s, nil
}

// repeatDamage reports what was found bad before, and is believed as far as it is good. Suspects are resolved first.
func (s *Store) repeatDamage() {
	for i := range s.shards {
		for _, r := range s.shards[i].m {
			if r.damaged && r.state == InSync && r.suspect == Sound {
				s.tell(r, "it was found damaged earlier", true)
			}
		}
	}
}

// begin decides who is suspect, and returns the changes that make it durable before anything is served.
func (w *saved) begin(boot string, left rules.Set) []Change {
	changes := []Change{
		{Key: metaKey(metaBoot), Value: []byte(boot)},
		{Key: metaKey(metaClean), Value: []byte{0}},
	}
	if w.clean || left.Has(rules.R6suspect) {
		return changes
	}
	suspicion := ProcessDied
	if w.boot != boot {
		suspicion = MachineDied
	}
	for id, had := range w.activity {
		if had < suspicion {
			w.activity[id] = suspicion
			changes = append(changes, Change{Key: idKey(kindActivity, id), Value: []byte{byte(suspicion)}})
		}
	}
	return changes
}

func newStore(fsys disk.FS, dir string, o Options) *Store {
	s := &Store{fs: fsys, dir: dir, options: o, logger: o.Logger, attendant: newAttendant(),
		cache:   cache{maxFiles: maxOpenFiles, maxTables: maxTableBytes},
		folders: folders{known: map[string]bool{}},
		syncs:   make(chan struct{}, parallelSyncs),
		intents: make(chan struct{}, atomicWrites), foldLast: foldLast,
		files: map[uint64]*file{},
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	reserve := o.Reserve
	if reserve == 0 {
		reserve = DefaultReserve
	}
	s.space = space{fs: fsys, dir: dir, reserve: max(0, reserve)}
	for i := range s.shards {
		s.shards[i].m = map[chunk.ID]*replica{}
	}
	return s
}

// fill makes the mirror of what was saved.
func (s *Store) fill(was *saved) {
	for id, epoch := range was.epochs {
		s.file(id, true).epoch.Store(epoch)
	}
	for id, g := range was.gone {
		s.file(id, true).gone.Store(&g)
	}
	for id, rec := range was.replicas {
		r := s.place(id)
		r.assign(rec)
		for _, num := range rec.layers {
			r.layers = append(r.layers, &layer{r: r, num: num, file: rec.file(num)})
		}
		suspicion, open := was.activity[id]
		if r.suspect = suspicion; suspicion != Sound {
			r.file.doubt.Store(true)
		}
		r.log.open.Store(open)
		r.verified.Store(was.verified[id])
	}
}

func (s *Store) stateFailed(err error) {
	s.unclean.Store(true)
	s.attendant.add(trouble{what: err.Error()})
}

// measureUse adds up what the files take that were there at the start.
func (s *Store) measureUse() {
	for i := range s.shards {
		sh := &s.shards[i]
		sh.mu.RLock()
		var names []string
		for id, r := range sh.m {
			r.mu.RLock()
			for _, l := range r.layers {
				names = append(names, s.layerName(id, l.file))
			}
			r.mu.RUnlock()
		}
		sh.mu.RUnlock()
		for _, name := range names {
			if s.closed.Load() {
				return
			}
			if n, err := s.fs.Allocated(name); err == nil {
				s.space.used.Add(n)
			}
		}
	}
}

// Close implements Engine. Requests under way end first; later ones are refused.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return ErrClosed
	}
	s.measure.Wait()
	s.stopJournal()
	var errs []error
	for r := range s.replicas() {
		errs = append(errs, s.closeReplica(r))
	}
	s.attendant.close()
	errs = append(errs, s.closeJournal())
	if !s.unclean.Load() { // replicas that failed are on record
		errs = append(errs, s.db.commit(Change{Key: metaKey(metaClean), Value: []byte{1}}))
	}
	errs = append(errs, s.db.close())
	return errors.Join(errs...)
}

// closeReplica syncs and closes a replica's files, for good.
func (s *Store) closeReplica(r *replica) error {
	r.ctl.Lock()
	defer r.ctl.Unlock()
	var errs []error
	for _, l := range r.layers {
		errs = append(errs, s.syncLayer(l)) // most of it, while requests under way go on
	}
	for _, l := range r.layers {
		errs = append(errs, s.closeSynced(l))
	}
	r.rebuild.end()
	return errors.Join(errs...)
}

func (s *Store) closeSynced(l *layer) error {
	l.sync.running.Lock()
	defer l.sync.running.Unlock()
	l.r.mu.Lock()
	defer l.r.mu.Unlock()
	err := s.syncLocked(l)
	return errors.Join(err, s.forget([]*layer{l}))
}
