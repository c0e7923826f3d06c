package fsm

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"pstorage/meta/fsm/fsmpb"
)

// Limits of NBD exports.
const (
	maxExports = 4096
	// maxExportName is the longest name of an export, or of a host or client that it is for.
	maxExportName = 255
	// maxExportFor is how many hosts, or clients, one export names.
	maxExportFor = 64
)

// export returns an NBD export, nil if there is none.
func (tx *txn) export(name string) *fsmpb.Export {
	e := &fsmpb.Export{}
	if name == "" || !tx.getMessage(tx.exports, []byte(name), e) {
		return nil
	}
	return e
}

// setExport makes an export, or alters one. It names its volume by its path: if that is removed, and made anew, the export is of the new one.
func (tx *txn) setExport(c *fsmpb.SetExport) (*fsmpb.Export, error) {
	e := c.Export
	if err := checkExport(e); err != nil {
		return nil, err
	}
	_, n, err := tx.find(e.Path)
	if err != nil {
		return nil, err
	}
	if n.Directory || n.Target != "" {
		return nil, fmt.Errorf("%s is a directory, or the volume of an iSCSI target: %w", e.Path, ErrInvalid)
	}
	switch have := tx.export(e.Name); {
	case have != nil && (have.Path != e.Path || have.Snapshot != e.Snapshot):
		return nil, fmt.Errorf("export %s, of %s: %w", e.Name, have.Path, ErrExists)
	case have != nil:
		e.Created = have.Created
	case len(keysWith(tx.exports, nil)) >= maxExports:
		return nil, fmt.Errorf("there are %d exports, no more than that: %w", maxExports, ErrInvalid)
	}
	tx.putMessage(tx.exports, []byte(e.Name), e)
	return e, nil
}

func (tx *txn) deleteExport(c *fsmpb.DeleteExport) error {
	if tx.export(c.Name) == nil {
		return fmt.Errorf("%s: %w", shorten(c.Name), ErrUnknownExport)
	}
	tx.delete(tx.exports, []byte(c.Name))
	return nil
}

func checkExport(e *fsmpb.Export) error {
	bad := !printable(e.GetName()) || strings.HasPrefix(e.GetName(), "/") || e.GetSnapshot() != "" && !printable(e.GetSnapshot())
	for _, list := range [][]string{e.GetHosts(), e.GetClients()} {
		bad = bad || len(list) > maxExportFor || slices.ContainsFunc(list, func(s string) bool { return !printable(s) })
	}
	if bad {
		return fmt.Errorf("export %q: names have 1 to %d bytes that can be printed, at most %d hosts and clients are named: %w",
			shorten(e.GetName()), maxExportName, maxExportFor, ErrInvalid)
	}
	return nil
}

func printable(s string) bool {
	return s != "" && len(s) <= maxExportName && !strings.ContainsFunc(s, unicode.IsControl)
}

// Exports returns all NBD exports, by name.
func (v *View) Exports() (out []*fsmpb.Export) {
	for _, key := range keysWith(v.exports, nil) {
		if e := v.export(string(key)); e != nil {
			out = append(out, e)
		}
	}
	return out
}

// checkExports looks for exports that cannot have been made. Their volumes may be gone.
func (v *View) checkExports() error {
	for _, key := range keysWith(v.exports, nil) {
		e := v.export(string(key))
		if e == nil || e.Name != string(key) || checkExport(e) != nil {
			return fmt.Errorf("export %q is not as exports are kept: %w", key, ErrCorrupt)
		}
	}
	return nil
}
