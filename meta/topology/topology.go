// Package topology says where chunk servers are, and what fails together.
//
// # DESIGN
//
// A place is a path room.row.rack.host.server. A failure domain is a prefix of it: two servers are in the same rack only if they are in the same row
// and room too. Hosts have names that are unique by themselves, wherever they stand. Plain functions; no goroutines, no locks.
package topology

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Failure domains, the smallest first. Part of the format.
const (
	Disk = "disk"
	Host = "host"
	Rack = "rack"
	Row  = "row"
	Room = "room"
)

// Domains are all failure domains.
var Domains = []string{Disk, Host, Rack, Row, Room}

// MaxLocation bounds a location.
const MaxLocation = 98

// maxPart bounds the name of a room, a row or a rack.
const maxPart = 32

// Unknown is the location of servers that were given none: one rack, in which all of these stand.
const Unknown = "0.0.0"

// ErrLocation: what should be a location is none.
var ErrLocation = errors.New("not a location")

// CheckLocation tells whether the text is ROOM.ROW.RACK.
func CheckLocation(text string) error {
	parts := strings.Split(text, ".")
	good := len(parts) == 3
	for _, p := range parts {
		good = good && p != "" && len(p) <= maxPart && strings.Trim(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == ""
	}
	if !good {
		return fmt.Errorf("%.100q: %w: it is ROOM.ROW.RACK, each of letters, digits, - and _ (example: 0.0.1)", text, ErrLocation)
	}
	return nil
}

// Place is where a chunk server is.
type Place struct {
	Server   uint32
	Host     string
	Location string // ROOM.ROW.RACK; empty: Unknown
}

// Domain names the failure domain of a kind that the place is in.
func (p Place) Domain(kind string) string {
	location := p.Location
	if location == "" {
		location = Unknown
	}
	room, rest, _ := strings.Cut(location, ".")
	row, _, _ := strings.Cut(rest, ".")
	switch kind {
	case Room:
		return room
	case Row:
		return room + "." + row
	case Rack:
		return location
	case Host:
		return p.Host
	}
	return strconv.FormatUint(uint64(p.Server), 10)
}

// Together tells whether two places fail together: they are the same server's, or in one failure domain of the kind.
func Together(kind string, a, b Place) bool {
	return a.Server == b.Server || a.Domain(kind) == b.Domain(kind)
}

// Spread is how many failure domains of a kind there are among places.
func Spread(kind string, places []Place) int {
	seen := map[string]bool{}
	for _, p := range places {
		seen[p.Domain(kind)] = true
	}
	return len(seen)
}
