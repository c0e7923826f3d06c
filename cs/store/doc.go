// Package store keeps the replicas of one disk: the Engine of a chunk server.
//
// # Format (version 1)
//
//	state.db                    a database (bbolt, one bucket "store"): the small durable state
//	state.spare                 room for the database on a full disk (spare.go): it may be missing
//	chunks/LL/F-G/I.N           one file per (chunk, layer), of package chunk; the names are drawn in files.go
//	quarantine/F.I.N.DATE       such files of replicas that were found bad, set aside for inspection; drawn in quarantine.go
//
// Keys of the database, numbers big endian in keys and little endian in values:
//
//	"m" "format"                u32 version of this format
//	"m" "boot"                  the operating system under which the store was opened last
//	"m" "clean"                 u8 1: it was closed; 0: it is in use, or was when its process ended
//	"m" "journal"               its write journal (replay.go); none: it has none
//	"f" u64 file                u64 epoch: the file's fence
//	"g" u64 file                its layers that are gone: u32 first, u32 last, of each run
//	"c" u64 file, u32 index     a replica's record (state.go)
//	"a" u64 file, u32 index     u8 Suspicion: the replica is in the activity log
//	"v" u64 file, u32 index     u64 unix time when the replica was last verified (verify.go); not there: never
//	"i" u64 file, u32 index     what an atomic write makes of blocks (intent.go), while its process may have ended in the middle of it
//
// # DESIGN
//
// Invariants:
//   - Nothing is served or answered on the ground of a state that is not durable. The mirror in memory changes after the transaction;
//     only what makes the store more careful (a replica leaves the activity log) changes before it.
//   - A byte of a replica changes only while it is in the activity log, durably. After an unclean end those in the log, and no others,
//     are suspect: outside them every block matches its sum. The one exception is a block that does not match, and is replaced by one that
//     does (mend.go), or given up (lossy.go): cut off by a crash, it is as bad as it was, or lost.
//   - A file has the code for lost blocks only when its header says so, durably: that code was a sum once (package chunk).
//   - A replica's record names a layer only when its file, with its name, is durable. So a file that is missing is damage.
//   - A layer is gone, durably, before the first block of it is moved, and for ever: it is not read by itself any more, nor written. It is a part of the next
//     number that is not gone, wherever its blocks are. A file has each number below its last, or it is gone.
//   - What a failed sync may have lost is never believed again (R8): the replica refuses everything, and is no base of a rebuild.
//
// Order of writes. Of a block the data come first, then the code: a kill between them leaves a block that does not match its sum,
// or, where there was none, one that is not there. Of a block that gives its space back the code comes first, then the hole: a
// kill between them costs space. Both are harmless because the replica is suspect then (R6).
//
// Atomic writes (atomic.go). What all of the blocks become is put into the database, durably, before the first of them changes; then the blocks change
// and are made durable, in the journal or in the chunk file; then the intent is taken away, durably. All that is done while nobody else can use the
// replica. So an intent that Open finds is newer than anything that the journal and the files have of its blocks: it is carried
// out after the journal's replay. What may find no space comes before the intent, and does not show. Where carrying out fails the replica has
// failed (R8), and the intent stays until the replica is prepared anew or removed; it is left out for replicas that no replay is for.
//
// A fence, a new version, a change of state: the durable state first, then the mirror, then every request that was admitted
// before has ended (it holds the replica's lock shared), then the answer.
//
// Journal (package journal). A store may have one. Blocks are then written to the chunk file as ever, and what they became is appended to
// the journal; the request is answered when the operating system has both. A flush is one sync of the journal. In the background, or when
// the journal is half full, a checkpoint syncs the chunk files that are dirty and gives the journal's space back. Open replays it.
//
// Why the replay brings back all that was promised, and nothing else:
//   - A block is changed, its layer marked dirty, then the record appended, under one hold of the replica's lock. So a checkpoint that takes
//     note of the journal's head and then syncs what is dirty has all records below in the files. What could not be written is not in the journal.
//   - Every change of a block that counts is in the journal, in order, or in the files before the journal's beginning. So the last record of a
//     block is the block; going through all of them again, as often as need be, ends with that.
//   - Prepare writes into a replica's record the number that the journal's next record will have (since). The replay leaves out lower ones, and stale
//     replicas: nothing from before a replica was removed, demoted or prepared gets into what it is now.
//   - A replica that is being pulled is not in the journal (after a crash it is made anew). It is from when it lacks nothing (rebuild.complete);
//     then its files are synced, and only after that it counts.
//   - What leaves the activity log is in the files, so the replay leaves out replicas that are not in it. They need no journal: if it is lost, the
//     others alone are incomplete (LoseJournal).
//   - Whatever syncs files for a promise syncs the journal too: no older record, durable, is left without the newer one.
//   - Giving a block up is recorded like any change: what older records have of it does not come back.
//   - Absolve needs no record: a suspect takes no writes, and the journal was emptied when the store was opened.
//
// Suspicion stays as it is without a journal (R6). After a kill the process may have ended between the file and the record, in a
// block that the journal has nothing of.
//
// A journal that fails ends every replica with records in it (R8), and all writes. A store whose journal is not there, or is another's, is
// not opened.
//
// Tables are written through a mapping of them where the disk can (disk.File.Window); that makes no difference to any of this.
//
// Files and tables in memory are bounded (cache.go). A dirty file is synced before it is closed, for the kernel tells of a failed write
// only those who have the file open.
//
// Folding (fold.go). The layers of a replica that are parts of one are merged, two at a time, while it is used: the blocks of the one that has
// fewer are put into the file of the other, which from one transaction on is the upper layer; the record says which number its name and header have.
// Then the other file goes; the record tells of it until it is gone. Why a fold changes nothing that anybody can see, whatever ends it:
//   - A block of the upper layer hides that of the lower. Where it is the lower file that blocks are put into, each is hidden all the time: it is made absent when
//     what hides it is durable, then the data are written, made durable, and only then their code. Where it is the upper file, the same, of blocks that are absent
//     there. So after any crash every block touched is absent or matches its code, and the chunk need not be in the activity log on that account.
//   - Before the transaction the file is synced, with the replica at rest, and what an earlier process may have moved is not taken as durable.
//   - Nothing of it is in the journal: a block that was absent has no records there, and what the lower file had by itself does not count any more.
//     Records of the upper layer find the file by the record, and are newer than what was moved, or the same.
//   - A block is moved if it still has the code that its data were read with; writes are partial, or fail half way, as they like (layer.spoilt).
//   - Others that look at layers by themselves (rebuilds, mending) say how many numbers are a part of each (Access.Below), and see the same before, meanwhile and
//     after, here or there. A target that has not heard that a layer is gone pulls lower layers first: what its source moves up meanwhile it gets twice.
//
// Which replicas are folded: those in sync, and sound. One being rebuilt waits, since its blocks are compared and kept by layer, and so does
// a suspect, in which a block may not match its code yet. Stale ones are left alone: nobody reads them but by Access.Former, and if one becomes the base of a rebuild
// it keeps what is gone as the part of the next layer that it is, and is folded when it is in sync.
//
// Verification (verify.go) reads what the disk has, without locks, and compares it with the codes in memory. Where that does not match,
// a writer may have been at work: the block is read once more while nobody else can use the replica, and that decides.
//
// Goroutines, besides the callers': the committer (one transaction for all that has come, in order), the attendant (records and reports
// replicas that went bad), with a journal the keeper (checkpoints), and, after Open, one that adds up the space used. Close ends them.
//
// Locks, in the order in which they are taken:
//
//	keeper.one                  one checkpoint at a time; room in the journal is waited for with no lock at all
//	file.ctl                    one raise of the epoch at a time
//	replica.ctl                 several in order of their names; held over transactions, and while others are asked (Absolve): one change of what is durable at a time
//	layer.sync.running          one sync of a file at a time
//	replica.mu                  shared by reads and writes of blocks; exclusive for changes of the replica's fields, pulls, loads, and atomic writes, which hold
//	                            it and layer.sync.running over transactions and syncs
//	cache.mu                    takes replica.mu only if it is free
//	quarantine.mu               one file is set aside at a time
//	journal                     its own locks
//	rebuild.mu, activity.mu, file.mu, shard.mu, committer.mu, attendant.mu: leaves, but that shard.mu comes before file.mu
//	                            and activity.mu before committer.mu
//
// An epoch is compared under replica.mu with an atomic that changes before replica.mu is taken exclusively once: whoever holds it later
// sees the new one.
package store
