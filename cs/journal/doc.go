// Package journal is a chunk store's write journal: a ring of records in one file, which says what blocks became. One sync of it makes
// durable what was written to any number of chunk files.
//
// # Format (version 1, little endian)
//
// The file "journal" in the journal's folder:
//
//	0        header, slot A, 4096 bytes
//	4096     header, slot B, 4096 bytes
//	8192     ring, a multiple of 4096 bytes, written in full when the journal is made
//
// A header goes to the slots in turn; of those that match their sum, that of the higher generation counts.
//
//	 0  [8] magic "PSJOURN\n"
//	 8  u32 format version
//	12  u32 zero
//	16 [16] id of the journal: its store knows it
//	32  u64 bytes in the ring
//	40  u64 generation
//	48  u64 where the first record that counts begins: bytes since the run began; modulo the ring's size it is the place in the ring
//	56  u64 that record's number
//	64  u32 CRC32C of bytes 0 to 63
//	68      zeros
//
// A record begins at a multiple of 512 and may go on at the ring's beginning:
//
//	 0  u32 magic "PSJR"
//	 4  u32 CRC32C of bytes 8 to 63 and the sums, seeded with the journal's id
//	 8  u64 number
//	16  u64 records with lower numbers than this were durable when it was written
//	24  u64 file id
//	32  u32 index of the chunk
//	36  u32 layer
//	40  u32 first block
//	44  u32 blocks
//	48  u32 code: 0 or 1 of package chunk, of all blocks, and that is all; 2: each block has a sum and data; 3: all are lost (chunk.Lost)
//	52      zeros
//	64  u32 per block: its sum; 2, of the time before there was chunk.Lost, is chunk.LeastSum
//	        zeros, to a multiple of 512
//	        data of the blocks, each of which must match its sum
//
// Programs of the time before code 3 take a record with it for the end of the journal: go back to one only after an orderly end, which leaves the
// journal empty.
//
// The upper 20 bits of a number are the run, the lower 44 count the run's records. A run begins each time the journal is opened, with
// nothing in the ring. So what an earlier run, an earlier lap or an earlier journal has left in the ring never passes for a record: its number,
// or its seed, is another.
//
// # DESIGN
//
// Invariants:
//   - Records are written in the order of their numbers, one after the other: a process that was killed leaves all records but perhaps the last.
//   - Space is used again only after a header that does without it is durable.
//   - What counts after a crash is every record from the header's on until the first that is not whole. If that one had been durable, as a
//     later record tells, this is no torn tail but damage (ErrDamaged): what was promised is not there.
//   - A failed write or sync of the file is not repeated (R8): everything fails from then on.
//
// Room: whoever is going to append reserves first, without locks that a checkpoint needs, and waits while the ring is full. Reserve asks for a
// checkpoint (Options.Full) once half of the ring is used. The last page of the ring is never used, since a record's last page is padded with zeros.
//
// No goroutines. Locks, in this order: syncing (one sync or header at a time), mu (a record being written, and the room).
package journal
