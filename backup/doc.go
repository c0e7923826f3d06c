// Package backup exports snapshots as streams (package stream), and imports them.
//
// # DESIGN
//
// Invariants:
//
//   - An export tells of each range of the snapshot that it holds data in or, of an increment, that may have changed since the base. What it tells of is read once, and the
//     records follow each other as offsets do.
//   - An import writes nothing that the stream has not verified, and notes how far it has come only when all before is on stable storage. So an import that goes on from
//     there, with a stream of the same snapshot and base, leaves the volume as if it had never stopped.
//   - An import has ended well only when the stream's end was read, and all is on stable storage. What becomes of the volume before, and after, is the caller's to see to: nobody
//     else may use it (the metadata servers keep it closed), and the end is one entry of their log.
//
// Goroutines: an export has one that looks for what to tell and starts the reads, as many at a time as there are buffers; the caller's own writes the records. An import has the caller's
// alone, with as many writes under way.
package backup

import (
	"context"
	"fmt"

	"pstorage/backup/stream"
	"pstorage/blockstore/block"
)

const (
	// buffers is how many reads or writes are under way at a time.
	buffers = 16
	// extentsAt is how many extents are asked for at a time.
	extentsAt = 1024
	// extentsOf is the most bytes that are asked about at a time: an answer is not to take long.
	extentsOf = 16 << 30
)

// piece is one request to a device, with a buffer of its own.
type piece struct {
	request block.Request
	buffer  []byte
	done    chan struct{}
	busy    bool // of an import: it is under way
}

func newPieces() []*piece {
	all := make([]*piece, buffers)
	for i := range all {
		all[i] = &piece{buffer: make([]byte, stream.MaxData), done: make(chan struct{}, 1)}
	}
	return all
}

// Complete implements block.Completer.
func (p *piece) Complete([]*block.Request) { p.done <- struct{}{} }

// submit starts the request.
func (p *piece) submit(d block.Device, op block.Op, offset, length int64) {
	p.request = block.Request{Op: op, Offset: offset, Length: length, Done: p}
	if op == block.Read || op == block.Write {
		p.request.Data = p.buffer[:length]
	}
	d.Submit([]*block.Request{&p.request})
}

// wait returns the outcome.
func (p *piece) wait() error {
	<-p.done
	if err := p.request.Err; err != nil {
		return fmt.Errorf("%v %d bytes at %d: %w", p.request.Op, p.request.Length, p.request.Offset, err)
	}
	return nil
}

// Changed describes where a snapshot may differ from its base, like block.Device.Extents: Allocated is what may differ, Zero that it reads as zeros.
type Changed func(ctx context.Context, offset, length int64, most int) ([]block.Extent, error)
