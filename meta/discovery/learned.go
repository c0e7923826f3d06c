package discovery

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Learn keeps the client addresses that the cluster has named, for programs that are started later: bs.list is the administrator's, and may name none
// that is left. Several programs may do so at once; one of them wins.
func Learn(paths Layout, addresses []string) error {
	if len(addresses) == 0 || slices.Equal(addresses, learned(paths)) {
		return nil
	}
	path := paths.LearnedList()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".mds.learned-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(strings.Join(addresses, "\n") + "\n")
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Chmod(f.Name(), 0o644)
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}

// Forget removes what was learned of an earlier cluster of the name.
func Forget(paths Layout) error {
	err := os.Remove(paths.LearnedList())
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

// learned returns what was kept, none if it cannot be read: it is only a help.
func learned(paths Layout) []string {
	list, err := readList(paths.LearnedList())
	if err != nil || len(list) > maxServers {
		return nil
	}
	return list
}
