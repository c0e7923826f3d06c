package raftstore

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/hashicorp/raft"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func encode(l *raft.Log) []byte {
	out := make([]byte, 0, len(l.Data)+len(l.Extensions)+40)
	out = append(out, byte(l.Type))
	out = binary.AppendUvarint(out, l.Term)
	var at int64
	if !l.AppendedAt.IsZero() {
		at = l.AppendedAt.UnixNano()
	}
	out = binary.AppendVarint(out, at)
	out = appendBytes(out, l.Data)
	out = appendBytes(out, l.Extensions)
	return binary.LittleEndian.AppendUint32(out, sum(l.Index, out))
}

func appendBytes(out, b []byte) []byte {
	out = binary.AppendUvarint(out, uint64(len(b)))
	return append(out, b...)
}

// sum covers the index too: an entry that is found in another's place does not verify.
func sum(index uint64, entry []byte) uint32 {
	return crc32.Update(crc32.Checksum(entry, castagnoli), castagnoli, indexKey(index))
}

// decode copies: the value belongs to the database.
func decode(index uint64, v []byte, out *raft.Log) error {
	corrupt := func(what string) error { return fmt.Errorf("entry %d: %s: %w", index, what, ErrCorrupt) }
	if len(v) < 5 {
		return corrupt("too short")
	}
	body, stored := v[:len(v)-4], binary.LittleEndian.Uint32(v[len(v)-4:])
	if sum(index, body) != stored {
		return corrupt("checksum does not match")
	}
	kind, rest := raft.LogType(body[0]), body[1:]
	term, n := binary.Uvarint(rest)
	if n <= 0 {
		return corrupt("term")
	}
	at, m := binary.Varint(rest[n:])
	if m <= 0 {
		return corrupt("time")
	}
	data, rest, ok := takeBytes(rest[n+m:])
	if !ok {
		return corrupt("data")
	}
	extensions, rest, ok := takeBytes(rest)
	if !ok || len(rest) != 0 {
		return corrupt("extensions")
	}
	*out = raft.Log{Index: index, Term: term, Type: kind, Data: data, Extensions: extensions}
	if at != 0 {
		out.AppendedAt = time.Unix(0, at)
	}
	return nil
}

func takeBytes(from []byte) (b, rest []byte, ok bool) {
	size, n := binary.Uvarint(from)
	if n <= 0 || size > uint64(len(from)-n) {
		return nil, nil, false
	}
	if size > 0 {
		b = append([]byte(nil), from[n:n+int(size)]...)
	}
	return b, from[n+int(size):], true
}
