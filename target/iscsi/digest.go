package iscsi

import (
	"encoding/binary"
	"hash/crc32"
)

// digestSize is that of a CRC32C digest: of header and additional segments, or of a data segment with its padding. It is sent with the
// low byte first (RFC 7143, 13.1).
const digestSize = 4

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendDigest(b, data []byte) []byte {
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(data, castagnoli))
}

func digestMatches(d, data []byte) bool {
	return binary.LittleEndian.Uint32(d) == crc32.Checksum(data, castagnoli)
}
