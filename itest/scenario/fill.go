package scenario

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"time"

	"pstorage/itest/nbd"
)

// fillSize is how much FillVolume writes at once, fillDepth how many such.
const (
	fillSize  = 1 << 20
	fillDepth = 4
)

// FillVolume writes bytes that do not repeat from the volume's beginning on, and flushes.
func FillVolume(ctx context.Context, uri string, bytes int64) error {
	client, err := nbd.Connect(uri)
	if err != nil {
		return err
	}
	defer client.Close()
	done := make(chan *nbd.Op, fillDepth)
	random := rand.NewPCG(uint64(bytes), 6)
	free := make([][]byte, fillDepth)
	for i := range free {
		free[i] = make([]byte, fillSize)
	}
	inFlight := 0
	for at := int64(0); at < bytes || inFlight > 0; {
		if at < bytes && len(free) > 0 && ctx.Err() == nil {
			data := free[len(free)-1]
			free = free[:len(free)-1]
			for i := 0; i < len(data); i += 8 {
				binary.LittleEndian.PutUint64(data[i:], random.Uint64())
			}
			client.Submit(&nbd.Op{Command: nbd.CmdWrite, Offset: at, Length: fillSize, Data: data}, func(op *nbd.Op) { done <- op })
			at, inFlight = at+fillSize, inFlight+1
			continue
		}
		if inFlight == 0 {
			return ctx.Err()
		}
		op := <-done
		inFlight--
		if op.Err != nil {
			return op.Err
		}
		free = append(free, op.Data)
	}
	return client.Flush()
}

// Scatter writes one block at each of that many random places of a volume's first bytes, and flushes.
func Scatter(uri string, bytes int64, writes int, seed uint64) error {
	client, err := nbd.Connect(uri)
	if err != nil {
		return err
	}
	defer client.Close()
	random := rand.New(rand.NewPCG(seed, 7))
	data := make([]byte, 4096)
	for i := range writes {
		binary.LittleEndian.PutUint64(data, uint64(i)+1)
		binary.LittleEndian.PutUint64(data[8:], seed)
		if err := client.Write(data, random.Int64N(bytes/4096)*4096); err != nil {
			return fmt.Errorf("write %d: %w", i, err)
		}
	}
	return client.Flush()
}

// Wait pauses, unless the context ends first.
func Wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
