package iscsi

import (
	"slices"
	"strconv"
	"strings"
)

// What this target offers.
const (
	ourSegment    = 256 << 10 // MaxRecvDataSegmentLength: the longest data segment accepted
	ourBurst      = 1 << 20   // MaxBurstLength
	ourFirstBurst = 64 << 10  // FirstBurstLength: data that comes before there is room for the command
	loginSegment  = 8192      // the limit before it is negotiated, both ways
	minSegment    = 512
	maxSegment    = 1<<24 - 1
)

// params of a session, as negotiated; they begin with the defaults of RFC 7143, 13.
type params struct {
	initialR2T    bool
	immediateData bool
	maxBurst      int
	firstBurst    int
	maxSend       int // the initiator's MaxRecvDataSegmentLength
	maxR2T        int

	framing
}

func defaultParams() params {
	return params{initialR2T: true, immediateData: true, maxBurst: 262144, firstBurst: 65536, maxSend: loginSegment, maxR2T: 1}
}

const (
	yes           = "Yes"
	no            = "No"
	none          = "None"
	crc32c        = "CRC32C"
	reject        = "Reject"
	irrelevant    = "Irrelevant"
	notUnderstood = "NotUnderstood"
)

// negotiate answers one operational key; "" is no answer, for a declaration.
func (p *params) negotiate(key, value string) string {
	switch key {
	case "HeaderDigest":
		return digest(value, &p.headerDigest)
	case "DataDigest":
		return digest(value, &p.dataDigest)
	case "TaskReporting":
		return choose(value, "RFC3720")
	case "InitialR2T":
		return boolean(value, &p.initialR2T, func(v bool) bool { return v })
	case "ImmediateData":
		return boolean(value, &p.immediateData, func(v bool) bool { return v })
	case "DataPDUInOrder", "DataSequenceInOrder":
		return boolean(value, new(bool), func(bool) bool { return true })
	case "IFMarker", "OFMarker":
		return boolean(value, new(bool), func(bool) bool { return false })
	case "IFMarkInt", "OFMarkInt":
		return irrelevant
	case "MaxRecvDataSegmentLength":
		return p.declareSegment(value)
	case "MaxBurstLength":
		return number(value, minSegment, maxSegment, ourBurst, &p.maxBurst)
	case "FirstBurstLength":
		return number(value, minSegment, maxSegment, ourFirstBurst, &p.firstBurst)
	case "MaxOutstandingR2T":
		return number(value, 1, 65535, 1, &p.maxR2T)
	case "MaxConnections":
		return number(value, 1, 65535, 1, new(int))
	case "ErrorRecoveryLevel":
		return number(value, 0, 2, 0, new(int))
	case "DefaultTime2Retain":
		return number(value, 0, 3600, 0, new(int))
	case "DefaultTime2Wait":
		return largest(value, 0, 3600)
	case "iSCSIProtocolLevel":
		return number(value, 0, 31, 1, new(int))
	}
	return notUnderstood
}

// choose picks want from a list of values.
func choose(list, want string) string {
	if slices.Contains(strings.Split(list, ","), want) {
		return want
	}
	return reject
}

// digest takes the first of the initiator's list that there is.
func digest(list string, on *bool) string {
	for _, v := range strings.Split(list, ",") {
		if v == crc32c || v == none {
			*on = v == crc32c
			return v
		}
	}
	return reject
}

// boolean sets v to what the rule makes of the offer.
func boolean(value string, v *bool, rule func(bool) bool) string {
	if value != yes && value != no {
		return reject
	}
	*v = rule(value == yes)
	if *v {
		return yes
	}
	return no
}

// number sets v to the smaller of the offer and ours.
func number(value string, low, high, ours int, v *int) string {
	n, ok := parseNumber(value)
	if !ok || n < uint64(low) || n > uint64(high) {
		return reject
	}
	*v = min(int(n), ours)
	return strconv.Itoa(*v)
}

// largest answers a key where the larger value counts and ours is the smallest.
func largest(value string, low, high int) string {
	n, ok := parseNumber(value)
	if !ok || n < uint64(low) || n > uint64(high) {
		return reject
	}
	return strconv.FormatUint(n, 10)
}

func (p *params) declareSegment(value string) string {
	n, ok := parseNumber(value)
	if !ok || n < minSegment || n > maxSegment {
		return reject
	}
	p.maxSend = int(n)
	return ""
}

// settle makes the values agree with each other once negotiation is over. Those that were not negotiated have their
// defaults; for data that comes unasked, ours is smaller only if we say so.
func (p *params) settle() {
	p.maxSend = max(p.maxSend&^3, minSegment)
	p.firstBurst = min(p.firstBurst, p.maxBurst)
}
