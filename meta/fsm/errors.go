package fsm

import "errors"

// Errors that a caller treats differently. Commands return them wrapped with the names of things.
var (
	ErrNotFound = errors.New("no such file or directory")
	ErrExists   = errors.New("already exists")
	ErrInvalid  = errors.New("invalid")
	ErrNotEmpty = errors.New("directory is not empty")
	// ErrNotHolder: the lease is not the caller's, or not any more.
	ErrNotHolder = errors.New("the lease is not held with this epoch")
	// ErrConflict: what the command was based on has changed.
	ErrConflict = errors.New("changed meanwhile")
	// ErrLastReplica: the chunk would be left without a replica in sync.
	ErrLastReplica = errors.New("the last replica in sync")
	// ErrUnsettled: a rebuild may not begin: the holder has not fenced and reconciled yet, or the epoch is another (R7).
	ErrUnsettled = errors.New("the file is not settled at this epoch")
	// ErrUnknownServer: no chunk server has the number.
	ErrUnknownServer = errors.New("no such chunk server")
	// ErrDropped: the chunk server was removed; its number is never given again.
	ErrDropped = errors.New("it was removed from the cluster; make-cs makes a new one")
	// ErrUnknownMember: no metadata server has the number, or ever had.
	ErrUnknownMember = errors.New("no such metadata server")
	// ErrRemoved: the metadata server was removed; its number is never given again.
	ErrRemoved = errors.New("the metadata server was removed from the cluster")
	// ErrLastMember: the cluster would be left without a metadata server.
	ErrLastMember     = errors.New("the last metadata server")
	ErrUnknownTarget  = errors.New("no such target")
	ErrUnknownLUN     = errors.New("no such LUN")
	ErrUnknownAccount = errors.New("no such account")
	// ErrUnknownExport: nothing is exported under the name.
	ErrUnknownExport = errors.New("no such export")
	// ErrInUse: something counts on it.
	ErrInUse = errors.New("in use")
	// ErrRevision: the target, or what is reserved of the volume, is another by now than the one that the command was made for.
	ErrRevision = errors.New("changed meanwhile by somebody else")
	// ErrUnknownSnapshot: no snapshot has the id, or the one that has is being deleted.
	ErrUnknownSnapshot = errors.New("no such snapshot")
	// ErrPending: a snapshot is not on stable storage yet.
	ErrPending = errors.New("it is being flushed, and can be used when that is done")
	// ErrProtected: a snapshot may not be deleted.
	ErrProtected = errors.New("protected against being deleted")
	// ErrTooMany: the file has as many snapshots as a file may have.
	ErrTooMany = errors.New("too many snapshots")
	// ErrCloned: a snapshot is what clones show where they have nothing themselves.
	ErrCloned = errors.New("needed by clones, which have to be flattened or removed first")
	// ErrTooDeep: a clone of a clone, and so on.
	ErrTooDeep = errors.New("too many clones upon clones: flatten the volume first")
	// ErrHasSnapshots: what a clone lacks its snapshots lack too.
	ErrHasSnapshots = errors.New("snapshots of its own, which have to be deleted, and merged, first")
	// ErrFlattening: no snapshot is taken of a file meanwhile: it would lack what is copied later.
	ErrFlattening = errors.New("it is being flattened: no snapshot can be taken until that has ended, or is cancelled")
	// ErrNotFlattening: the file was not to be flattened, or not any more.
	ErrNotFlattening = errors.New("it is not being flattened (any more)")
	// ErrImporting: a file may not be used before an import into it has ended.
	ErrImporting = errors.New("an import into it has not ended")
	// ErrNotImporting: no import of that snapshot into the file is under way, or none could begin.
	ErrNotImporting = errors.New("no import of that is under way")
	// ErrNoBase: the file is not what an increment is to be put on.
	ErrNoBase = errors.New("it is not what the increment is to be put on")
	// ErrUnclean: what the last holder left in flight is not sorted out.
	ErrUnclean = errors.New("it was left without being closed: it has to be opened and closed first")
	// ErrQuota: the volumes below a folder may not become larger.
	ErrQuota = errors.New("over quota")
	// ErrTerm: the leader that judged what the command rests on was deposed meanwhile.
	ErrTerm = errors.New("the leader was deposed")
	// ErrNewer: the log or the state has something that this version of the program does not know, and may not pass over.
	ErrNewer = errors.New("it is of a newer version than this metadata server: install the version that the others have")
	// ErrLevel: not all metadata servers know the command.
	ErrLevel = errors.New("not before all metadata servers have the new version (list-services -M shows which they have)")
	// ErrBroken: the database has failed; this server can apply nothing more until it is started anew.
	ErrBroken = errors.New("the metadata database has failed")
	// ErrCorrupt: a record cannot be decoded.
	ErrCorrupt = errors.New("metadata record is corrupt")
	// ErrFormat: a snapshot of another format.
	ErrFormat = errors.New("metadata has a format this version does not know")
)
