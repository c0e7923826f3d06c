package scsi

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"

	"pstorage/blockstore/block"
)

// Identity of the product, in INQUIRY data.
const (
	vendor   = "PSTORAGE"
	product  = "THIN-DISK       "
	revision = "0001"
)

// Peripheral qualifier and device type, in one byte.
const (
	typeDisk         = 0x00
	typeNotConnected = 0x3f // a LUN where a device could be but is not
	typeNotSupported = 0x7f // a LUN where no device can be
)

// Vital product data pages.
const (
	vpdSupported       = 0x00
	vpdSerial          = 0x80
	vpdIdentification  = 0x83
	vpdThirdParty      = 0x8f
	vpdBlockLimits     = 0xb0
	vpdCharacteristics = 0xb1
	vpdProvisioning    = 0xb2
)

// versions are the version descriptors: SAM-5, iSCSI, SPC-4, SBC-3, none of them a particular revision.
var versions = [...]uint16{0x00a0, 0x0960, 0x0460, 0x04c0}

// prepareAllocation announces data-in of up to the CDB's allocation length, in the two bytes at i.
func prepareAllocation(i int) func(*Task) {
	return func(t *Task) { t.wantIn(t.u16(i)) }
}

func startInquiry(t *Task) bool {
	page, allocation := t.CDB[2], t.u16(3)
	switch {
	case t.CDB[1]&2 != 0: // CMDDT, long obsolete
		t.badField(1)
	case t.CDB[1]&1 != 0:
		if data := t.nexus.vpd(page); data != nil {
			t.reply(data, allocation)
		} else {
			t.badField(2)
		}
	case page != 0:
		t.badField(2)
	default:
		t.reply(standardInquiry(typeDisk, t.lu.has(removable)), allocation)
	}
	return true
}

// standardInquiry draws the standard INQUIRY data.
func standardInquiry(kind byte, removable bool) []byte {
	b := make([]byte, 96)
	b[0] = kind
	if removable {
		b[1] = 0x80
	}
	b[2] = 6 // SPC-4
	b[3] = 0x12
	b[4] = byte(len(b) - 5)
	if kind == typeDisk {
		b[5] = 0x38 // TPGS: implicit and explicit; 3PC
	}
	b[7] = 0x02 // CMDQUE
	copy(b[8:], vendor)
	copy(b[16:], product)
	copy(b[32:], revision)
	for i, v := range versions {
		binary.BigEndian.PutUint16(b[58+2*i:], v)
	}
	return b
}

// vpd draws a vital product data page, or nil.
func (n *Nexus) vpd(page byte) []byte {
	var body []byte
	switch page {
	case vpdSupported:
		body = []byte{vpdSupported, vpdSerial, vpdIdentification, vpdThirdParty, vpdBlockLimits, vpdCharacteristics, vpdProvisioning}
	case vpdSerial:
		body = []byte(n.lu.serial())
	case vpdIdentification:
		body = n.identification()
	case vpdThirdParty:
		body = thirdParty()
	case vpdBlockLimits:
		body = n.lu.blockLimits()
	case vpdCharacteristics:
		body = make([]byte, 60)
		body[1] = 1    // not a rotating medium
		body[3] = 0x40 // WABEREQ: what was erased reads as zeros
	case vpdProvisioning:
		// LBPU, LBPWS, LBPWS10, LBPRZ; thin provisioned
		body = []byte{bit(thresholdExponent, n.lu.thin), 0xe4, 0x02, 0}
	default:
		return nil
	}
	b := []byte{typeDisk, page, 0, 0}
	binary.BigEndian.PutUint16(b[2:], uint16(len(body)))
	return append(b, body...)
}

func (u *LU) serial() string { return hex.EncodeToString(u.id[:]) }

// naa is a locally assigned name (NAA 3h) of the volume: 60 bits drawn from its id, so that it stays the same wherever
// the volume is exported.
func (u *LU) naa() []byte {
	sum := sha256.Sum256(append([]byte("pstorage volume "), u.id[:]...))
	sum[0] = 0x30 | sum[0]&0x0f
	return sum[:8]
}

// Designators of the identification page.
const (
	binaryCode  = 0x01
	asciiCode   = 0x02
	utf8Code    = 0x03
	ofTheLU     = 0x00
	ofThePort   = 0x90 // PIV, association: target port
	ofTheTarget = 0xa0
	typeT10     = 0x01
	typeNAA     = 0x03
	typePort    = 0x04
	typeGroup   = 0x05
	typeName    = 0x08
)

func (n *Nexus) identification() []byte {
	b := designator(nil, binaryCode, ofTheLU|typeNAA, n.lu.naa())
	b = designator(b, asciiCode, ofTheLU|typeT10, []byte(vendor+n.lu.serial()))
	tag := []byte{0, 0, byte(n.port.Tag >> 8), byte(n.port.Tag)}
	b = designator(b, 0x50|binaryCode, ofThePort|typePort, tag)
	b = designator(b, 0x50|binaryCode, ofThePort|typeGroup, tag)
	b = designator(b, 0x50|utf8Code, ofThePort|typeName, padName(fmt.Sprintf("%s,t,0x%04x", n.port.Target, n.port.Tag)))
	return designator(b, 0x50|utf8Code, ofTheTarget|typeName, padName(n.port.Target))
}

func designator(b []byte, code, kind byte, id []byte) []byte {
	return append(append(b, code, kind, 0, byte(len(id))), id...)
}

// padName ends a SCSI name string with zeros, to a multiple of four bytes.
func padName(s string) []byte {
	b := append([]byte(s), 0)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b[:min(len(b), 252)]
}

// optimalTransfer is where larger transfers stop being faster, in bytes.
const optimalTransfer = 1 << 20

func (u *LU) blockLimits() []byte {
	perUnit := uint32(u.inBlocks(block.Size))
	b := make([]byte, 60)
	b[0] = 1 // WSNZ
	b[1] = byte(u.inBlocks(block.MaxCompare))
	put32 := func(at int, v uint32) { binary.BigEndian.PutUint32(b[at-4:], v) } // offsets as in the standard
	binary.BigEndian.PutUint16(b[2:], uint16(perUnit))
	put32(8, uint32(u.inBlocks(block.MaxTransfer)))
	put32(12, uint32(u.inBlocks(optimalTransfer)))
	put32(20, uint32(u.inBlocks(maxUnmap)))
	put32(24, maxUnmapDescriptors)
	put32(28, perUnit)
	put32(32, 1<<31) // UGAVALID, alignment 0
	most, granularity, _ := u.atomicity()
	put32(44, uint32(most))
	put32(48, uint32(granularity)) // where one may begin
	put32(52, uint32(granularity))
	binary.BigEndian.PutUint64(b[36-4:], u.inBlocks(maxWriteSame))
	return b
}
