// Package discovery finds the metadata servers of a cluster by its name, and the folders that belong to it.
//
// # DESIGN
//
// An administrator names a metadata server by one address, HOST[:PORT], the one that was given to make-mds: by convention port
// 2510. There the metadata servers talk to each other; everyone else uses the next port. Everything that this package
// returns is an address for everyone else, ready to be dialled. Plain functions; no goroutines, no locks.
package discovery

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
)

const (
	// DefaultPort is where metadata servers talk to each other.
	DefaultPort = 2510
	// MaxName is the longest cluster name.
	MaxName = 64
	// maxServers bounds a list of metadata servers.
	maxServers = 64
	// maxList is the most bytes of a bs.list that are read.
	maxList = 64 << 10
)

// Errors that a caller may treat differently.
var (
	ErrName    = errors.New("bad cluster name: a-z, A-Z, 0-9, - and _ are allowed")
	ErrUnknown = errors.New("no metadata server is known")
	ErrAddress = errors.New("bad address of a metadata server")
)

// CheckName tells whether a cluster may have the name.
func CheckName(name string) error {
	ok := name != "" && len(name) <= MaxName
	for _, c := range []byte(name) {
		ok = ok && ('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_')
	}
	if !ok {
		return fmt.Errorf("cluster %q: %w", name, ErrName)
	}
	return nil
}

// Resolve returns the client addresses of the cluster's metadata servers: of those in explicit (each element may hold several, with
// commas), else of those in the cluster's bs.list, followed by those that the cluster itself named last (Learn).
func Resolve(explicit []string, paths Layout) ([]string, error) {
	var entries []string
	for _, e := range explicit {
		for _, one := range strings.Split(e, ",") {
			if one = strings.TrimSpace(one); one != "" {
				entries = append(entries, one)
			}
		}
	}
	fromList := len(entries) == 0
	if fromList {
		var err error
		if entries, err = readList(paths.BootstrapList()); err != nil {
			return nil, err
		}
	}
	if len(entries) == 0 || len(entries) > maxServers {
		return nil, fmt.Errorf("cluster %q: %d servers given and in %s: %w", paths.Cluster, len(entries), paths.BootstrapList(), ErrUnknown)
	}
	out, err := clientAddresses(entries)
	if err != nil || !fromList {
		return out, err
	}
	for _, a := range learned(paths) {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out, nil
}

// ClientAddress returns where clients reach the metadata server that was given the address HOST[:PORT].
func ClientAddress(address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil { // without a port
		host, port = strings.Trim(address, "[]"), strconv.Itoa(DefaultPort)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || n == 65535 || host == "" || strings.ContainsAny(host, " \t/@") {
		return "", fmt.Errorf("%q: %w", address, ErrAddress)
	}
	return net.JoinHostPort(host, strconv.FormatUint(n+1, 10)), nil
}

func clientAddresses(entries []string) ([]string, error) {
	out := make([]string, 0, len(entries))
	for _, e := range entries {
		a, err := ClientAddress(e)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// readList reads one HOST[:PORT] a line; # begins a comment. A file that is not there lists nothing.
func readList(path string) ([]string, error) {
	data, err := readAtMost(path, maxList)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list of metadata servers: %w", err)
	}
	return parseList(data), nil
}

func parseList(data string) (entries []string) {
	for lines := bufio.NewScanner(strings.NewReader(data)); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		if line = strings.TrimSpace(line); line != "" {
			entries = append(entries, line)
		}
	}
	return entries
}

func readAtMost(path string, limit int64) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Size() > limit {
		return "", fmt.Errorf("%s: %d bytes, at most %d are read", path, info.Size(), limit)
	}
	data, err := os.ReadFile(path)
	return string(data), err
}
