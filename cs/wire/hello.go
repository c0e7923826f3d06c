package wire

import (
	"encoding/binary"
	"fmt"
)

const helloSize = 68

// Hello opens a session.
type Hello struct {
	ClusterID [16]byte
	// Client names the client over its restarts; Incarnation and Session number its processes and their sessions. Of two
	// sessions the one with the higher (Incarnation, Session) is the newer.
	Client      [16]byte
	Incarnation uint64
	Session     uint64
	// Server is the chunk server that is meant to answer; 0: any.
	Server uint32
	// Peer: the client is a chunk server that pulls a replica. It may only read.
	Peer bool
}

// newer reports whether h may take over from old.
func (h *Hello) newer(old *Hello) bool {
	if h.Incarnation != old.Incarnation {
		return h.Incarnation > old.Incarnation
	}
	return h.Session > old.Session
}

// AppendHello encodes h.
func AppendHello(b []byte, h *Hello) []byte {
	start := len(b)
	b = append(b, h.ClusterID[:]...)
	b = append(b, h.Client[:]...)
	b = binary.LittleEndian.AppendUint64(b, h.Incarnation)
	b = binary.LittleEndian.AppendUint64(b, h.Session)
	b = binary.LittleEndian.AppendUint32(b, h.Server)
	b = binary.LittleEndian.AppendUint32(b, Version)
	var peer byte
	if h.Peer {
		peer = 1
	}
	b = append(b, peer, 0, 0, 0, 0, 0, 0, 0)
	return binary.LittleEndian.AppendUint32(b, crc(b[start:]))
}

// DecodeHello decodes a Hello; one of another version of the protocol is an ErrVersion.
func DecodeHello(b []byte) (h Hello, err error) {
	if len(b) != helloSize || binary.LittleEndian.Uint32(b[64:]) != crc(b[:64]) {
		return h, fmt.Errorf("%w: hello of %d bytes does not verify", ErrProtocol, len(b))
	}
	copy(h.ClusterID[:], b[0:])
	copy(h.Client[:], b[16:])
	h.Incarnation = binary.LittleEndian.Uint64(b[32:])
	h.Session = binary.LittleEndian.Uint64(b[40:])
	h.Server = binary.LittleEndian.Uint32(b[48:])
	if v := binary.LittleEndian.Uint32(b[52:]); v != Version {
		return h, fmt.Errorf("%w: %d, this is %d", ErrVersion, v, Version)
	}
	if b[56] > 1 {
		return h, fmt.Errorf("%w: hello with peer %d", ErrProtocol, b[56])
	}
	h.Peer = b[56] == 1
	return h, nil
}
