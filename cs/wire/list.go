package wire

import (
	"encoding/binary"
	"fmt"

	"pstorage/cs/store"
)

const (
	chunkVersionSize = 12
	// MaxList is the most chunks one list names.
	MaxList = 65536
)

// AppendChunkVersions encodes a list for Call.Body (OpRaise, OpSettle); at most MaxList entries.
func AppendChunkVersions(b []byte, list []store.ChunkVersion) []byte {
	start := len(b)
	for _, c := range list {
		b = binary.LittleEndian.AppendUint32(b, c.Index)
		b = binary.LittleEndian.AppendUint64(b, c.Version)
	}
	return binary.LittleEndian.AppendUint32(b, crc(b[start:]))
}

// DecodeChunkVersions decodes a list (Call.Reply of OpFence).
func DecodeChunkVersions(b []byte) ([]store.ChunkVersion, error) {
	n := (len(b) - 4) / chunkVersionSize
	if len(b) < 4 || len(b) != n*chunkVersionSize+4 || n > MaxList {
		return nil, fmt.Errorf("%w: list of %d bytes", ErrProtocol, len(b))
	}
	body := b[:len(b)-4]
	if binary.LittleEndian.Uint32(b[len(body):]) != crc(body) {
		return nil, fmt.Errorf("%w: list does not verify", ErrProtocol)
	}
	list := make([]store.ChunkVersion, n)
	for i := range list {
		e := body[i*chunkVersionSize:]
		list[i] = store.ChunkVersion{Index: binary.LittleEndian.Uint32(e), Version: binary.LittleEndian.Uint64(e[4:])}
	}
	return list, nil
}
