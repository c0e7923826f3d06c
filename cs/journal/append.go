package journal

import (
	"fmt"

	"pstorage/cs/chunk"
)

// RoomFor is how many bytes records of that many blocks with data take at most, however they are cut.
func RoomFor(blocks int) int64 { return int64(blocks) * (unit + chunk.BlockSize) }

// RoomForCode is what a record without data takes.
const RoomForCode = unit

// capacity is how much of the ring may be used.
func (j *Journal) capacity() int64 { return int64(j.size) - page }

// Reserve waits until there is room for n bytes of records besides what others have reserved. Not with a lock held that a checkpoint
// needs. Release gives it back, once the records are appended.
func (j *Journal) Reserve(n int64) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if n > j.capacity()/2 {
		return fmt.Errorf("%w: %d bytes at once into a ring of %d", ErrSize, n, j.size)
	}
	waited := false
	for j.err == nil && int64(j.head.Off-j.tail)+j.reserved+n > j.capacity() {
		if !waited {
			waited = true
			j.waits++
		}
		j.full()
		j.room.Wait()
	}
	if j.err != nil {
		return j.err
	}
	j.reserved += n
	return nil
}

// Release gives back what was reserved. What has been appended meanwhile was counted twice.
func (j *Journal) Release(n int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.reserved -= n
	if j.reserved < 0 {
		panic("journal: more room released than reserved")
	}
	if j.waits > 0 {
		j.room.Broadcast()
	}
}

func (j *Journal) full() {
	if j.opts.Full != nil {
		j.opts.Full()
	}
}

// Append writes records: of blocks with data, as many as it takes. They are in the operating system when it returns; Sync makes them
// durable. Room for them has been reserved.
func (j *Journal) Append(r Record) error {
	j.mu.Lock()
	err := j.err
	for err == nil && r.Sums != nil && r.Blocks > maxBlocks {
		part := r
		part.Blocks, part.Sums, part.Data = maxBlocks, r.Sums[:maxBlocks], r.Data[:maxBlocks*chunk.BlockSize]
		err = j.append(&part)
		r.First, r.Blocks, r.Sums, r.Data = r.First+maxBlocks, r.Blocks-maxBlocks, r.Sums[maxBlocks:], r.Data[maxBlocks*chunk.BlockSize:]
	}
	if err == nil {
		err = j.append(&r)
	}
	j.mu.Unlock()
	if err == nil || err == j.Err() {
		return err
	}
	return j.fail("write", err)
}

// append writes one record. The caller holds mu.
func (j *Journal) append(r *Record) error {
	n := r.length()
	if int64(j.head.Off-j.tail)+int64(n) > j.capacity() {
		return fmt.Errorf("no room for %d bytes that nobody has reserved", n)
	}
	r.Seq, r.Synced = j.head.Seq, j.durable.Load()
	// To the end of the page: the kernel need not read what is there.
	padded := (int(j.head.Off%page)+n+page-1)/page*page - int(j.head.Off%page)
	if cap(j.buf) < padded {
		j.buf = make([]byte, padded)
	}
	buf := j.buf[:padded]
	clear(buf[:headLength(len(r.Sums))])
	clear(buf[n:])
	r.encode(buf[:n], j.seed)
	if err := j.put(buf, j.head.Off); err != nil {
		return err
	}
	used := int64(j.head.Off - j.tail)
	j.head = Position{j.head.Off + uint64(n), j.head.Seq + 1}
	j.written.Store(j.head.Seq)
	j.records++
	if half := j.capacity() / 2; used < half && used+int64(n) >= half {
		j.full()
	}
	return nil
}

// put writes bytes to the ring, around its end if need be.
func (j *Journal) put(p []byte, off uint64) error {
	at := off % j.size
	if rest := j.size - at; uint64(len(p)) > rest {
		if _, err := j.f.WriteAt(p[:rest], ringOffset+int64(at)); err != nil {
			return err
		}
		p, at = p[rest:], 0
	}
	_, err := j.f.WriteAt(p, ringOffset+int64(at))
	return err
}

// Sync makes durable what was appended before the call; calls at the same time share one sync.
func (j *Journal) Sync() error {
	want := j.written.Load()
	j.syncing.Lock()
	defer j.syncing.Unlock()
	if err := j.Err(); err != nil {
		return err
	}
	if j.durable.Load() >= want {
		return nil
	}
	covers := j.written.Load()
	if err := j.f.Sync(); err != nil {
		return j.fail("sync", err)
	}
	j.syncs.Add(1)
	j.durable.Store(covers)
	return nil
}

// Head is the position of the next record: everything appended before is below.
func (j *Journal) Head() Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.head
}

// Free gives back the space of the records below a position: what they say is durable elsewhere.
func (j *Journal) Free(to Position) error {
	j.syncing.Lock()
	defer j.syncing.Unlock()
	if err := j.Err(); err != nil {
		return err
	}
	covers := j.written.Load()
	if err := j.setStart(to); err != nil {
		return err
	}
	j.durable.Store(max(j.durable.Load(), covers))
	j.mu.Lock()
	defer j.mu.Unlock()
	j.tail = to.Off
	j.frees++
	j.room.Broadcast()
	return nil
}
