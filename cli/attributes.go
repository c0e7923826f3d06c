package main

import (
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"pstorage/cli/size"
	"pstorage/meta/metapb"
	"pstorage/meta/topology"
)

// Limits of attributes, for early and clear messages; the metadata servers have the last word.
const (
	maxReplicas  = 64
	maxTier      = 3
	minChunkSize = 1 << 20
	maxChunkSize = 256 << 20
)

// parseAttributes reads NAME=VALUE arguments into attributes.
func parseAttributes(pairs []string) (*metapb.Attributes, error) {
	attributes := &metapb.Attributes{}
	for _, pair := range pairs {
		name, value, ok := strings.Cut(strings.TrimPrefix(pair, "/"), "=")
		if !ok {
			return nil, usagef("%q is not NAME=VALUE (example: replicas=3:2)", pair)
		}
		if err := setAttribute(attributes, name, value); err != nil {
			return nil, err
		}
	}
	return attributes, nil
}

func setAttribute(attributes *metapb.Attributes, name, value string) (err error) {
	switch name {
	case "replicas":
		attributes.ReplicasNorm, attributes.ReplicasMin, err = parseReplicas(value)
	case "failure-domain":
		attributes.FailureDomain, err = parseDomain(value)
	case "chunk-size":
		attributes.ChunkSize, err = parseChunkSize(value)
	case "tier":
		attributes.Tier, err = parseTier(value)
	default:
		err = usagef("there is no attribute %q; there are replicas, failure-domain, chunk-size and tier", name)
	}
	return err
}

// parseReplicas reads NORM or NORM:MIN. Without MIN it is half of NORM, rounded up: 1:1, 2:1, 3:2, 4:2, 5:3.
func parseReplicas(value string) (norm, least uint32, err error) {
	first, second, both := strings.Cut(value, ":")
	n, err := strconv.ParseUint(first, 10, 32)
	if err != nil || n < 1 || n > maxReplicas {
		return 0, 0, usagef("replicas=%s: must be NORM or NORM:MIN, NORM 1 to %d (example: 3:2)", value, maxReplicas)
	}
	m := (n + 1) / 2
	if both {
		if m, err = strconv.ParseUint(second, 10, 32); err != nil || m < 1 || m > n {
			return 0, 0, usagef("replicas=%s: MIN must be between 1 and NORM (example: 3:2)", value)
		}
	}
	return uint32(n), uint32(m), nil
}

func parseDomain(value string) (string, error) {
	if slices.Contains(topology.Domains, value) {
		return value, nil
	}
	return "", usagef("failure-domain=%s: must be one of %s", value, strings.Join(topology.Domains, ", "))
}

func parseChunkSize(value string) (uint64, error) {
	n, err := size.Parse(value)
	if err != nil {
		return 0, coded(exitUsage, err)
	}
	if n < minChunkSize || n > maxChunkSize || bits.OnesCount64(n) != 1 {
		return 0, usagef("chunk size %s: must be a power of two from 1M to 256M", value)
	}
	return n, nil
}

// parseTier returns the number as it is sent: one more, since zero says inherited.
func parseTier(value string) (uint32, error) {
	n, err := strconv.ParseUint(value, 10, 32)
	if err != nil || n > maxTier {
		return 0, usagef("tier=%s: must be 0 to %d", value, maxTier)
	}
	return uint32(n) + 1, nil
}
