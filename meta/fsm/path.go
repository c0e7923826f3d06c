package fsm

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// splitPath returns the components of an absolute path; none for "/".
func splitPath(path string) ([]string, error) {
	if len(path) > MaxPath || !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("path %q: not absolute, or too long: %w", shorten(path), ErrInvalid)
	}
	trimmed := strings.TrimSuffix(path[1:], "/")
	if trimmed == "" {
		return nil, nil
	}
	parts := strings.Split(trimmed, "/")
	if len(parts) > MaxDepth {
		return nil, fmt.Errorf("path %q: deeper than %d: %w", shorten(path), MaxDepth, ErrInvalid)
	}
	for _, name := range parts {
		if err := checkName(name); err != nil {
			return nil, err
		}
	}
	return parts, nil
}

func checkName(name string) error {
	bad := name == "" || name == "." || name == ".." || len(name) > MaxName || !utf8.ValidString(name)
	for _, r := range name {
		bad = bad || r < ' ' || r == 0x7f
	}
	if bad {
		return fmt.Errorf("name %q: %w", shorten(name), ErrInvalid)
	}
	return nil
}

func shorten(s string) string {
	if len(s) > 100 {
		return s[:100] + "..."
	}
	return s
}

func nameKeyOf(parent uint64, name string) []byte { return append(nodeKey(parent), name...) }

// walk returns the number of what the path names; where it is not there, the number of the directory it would be in and its name.
func (tx *txn) walk(path string) (id, parent uint64, name string, err error) {
	parts, err := splitPath(path)
	if err != nil {
		return 0, 0, "", err
	}
	id = Root
	for i, part := range parts {
		parent, name = id, part
		id = number(tx.names.Get(nameKeyOf(parent, part)))
		if id == 0 && i < len(parts)-1 {
			return 0, 0, "", fmt.Errorf("%s: %w", "/"+strings.Join(parts[:i+1], "/"), ErrNotFound)
		}
	}
	return id, parent, name, nil
}

// pathOf goes up from a node to the root.
func (tx *txn) pathOf(id uint64) string {
	var parts []string
	for id != Root {
		n := tx.node(id)
		if n == nil || len(parts) > MaxDepth {
			tx.fail(fmt.Errorf("node %d has no way to the root: %w", id, ErrCorrupt))
			return ""
		}
		parts = append(parts, n.Name)
		id = n.Parent
	}
	if len(parts) == 0 {
		return "/"
	}
	var b strings.Builder
	for i := len(parts) - 1; i >= 0; i-- {
		b.WriteString("/" + parts[i])
	}
	return b.String()
}
