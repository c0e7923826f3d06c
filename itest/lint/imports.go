// Package lint checks what the compiler does not: that imports run downwards, that functions and files stay small,
// and that habits the project has agreed on are kept. Its tests are the checks (make lint).
package lint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"sort"
	"strings"
)

const module = "pstorage"

// allowed names, for each part of the house, what of the house it may import besides itself and what lies below it. The
// longest prefix that fits a package is the one that counts.
var allowed = map[string][]string{
	"cs/chunk":             nil,
	"cs/disk":              nil,
	"cs/wire":              {"cs/chunk", "cs/store", "meta/rules"},
	"cs/journal":           {"cs/chunk", "cs/disk"},
	"cs/store":             {"cs/chunk", "cs/disk", "cs/journal", "meta/rules"},
	"cs":                   {"meta/metapb", "meta/client", "meta/discovery", "meta/rules"},
	"meta/rules":           nil,
	"meta/metapb":          nil,
	"meta/targetpb":        nil,
	"meta/discovery":       nil,
	"meta/client":          {"meta/metapb", "meta/targetpb", "meta/discovery"},
	"meta":                 nil,
	"blockstore/block":     nil,
	"blockstore":           {"cs/wire", "cs/chunk", "cs/store", "meta/metapb", "meta/rules"},
	"backup/stream":        nil,
	"backup":               {"blockstore/block"},
	"target/scsi":          {"blockstore/block"},
	"target/nbd":           {"blockstore/block"},
	"target/iscsi":         {"blockstore/block", "target/scsi"},
	"target":               {"blockstore", "meta/metapb", "meta/targetpb"},
	"cli/size":             nil,
	"cli/print":            {"cli/size", "backup/stream", "meta/metapb", "meta/targetpb", "target/nbd"},
	"cli/daemon":           nil,
	"cli":                  {"meta", "cs", "blockstore", "backup", "target"},
	"docs/model":           nil,
	"itest":                {"cli", "meta", "cs", "blockstore", "backup", "target"},
	"blockstore/blocktest": {"blockstore/block"},
}

// testsMayUse is what tests of every part may import besides.
var testsMayUse = []string{"itest", "blockstore/blocktest", "blockstore/block"}

// floors are the parts from the ground up. Tests may put a part on real ones from below it, where the code goes through an
// interface.
var floors = []string{"meta", "cs", "blockstore", "target", "cli"}

// below lists the floors under the one that a package is on.
func below(from string) []string {
	for i, floor := range floors {
		if within(from, floor) {
			return floors[:i]
		}
	}
	return nil
}

// Package is what `go list -json` tells of one.
type Package struct {
	ImportPath   string
	Imports      []string
	TestImports  []string
	XTestImports []string
}

// Packages lists the module's packages; dir is its folder.
func Packages(dir string) ([]Package, error) {
	list := exec.Command("go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")
	list.Dir = dir
	text, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	var packages []Package
	for decoder := json.NewDecoder(bytes.NewReader(text)); ; {
		var p Package
		switch err := decoder.Decode(&p); {
		case errors.Is(err, io.EOF):
			return packages, nil
		case err != nil:
			return nil, err
		}
		packages = append(packages, p)
	}
}

// Upward returns a sentence for each import that does not run downwards, sorted.
func Upward(packages []Package) (wrong []string) {
	for _, p := range packages {
		from := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, imported := range p.Imports {
			if !mayImport(from, imported, nil) {
				wrong = append(wrong, fmt.Sprintf("%s must not import %s", from, imported))
			}
		}
		for _, imported := range append(p.TestImports, p.XTestImports...) {
			if !mayImport(from, imported, slices.Concat(testsMayUse, below(from))) {
				wrong = append(wrong, fmt.Sprintf("tests of %s must not import %s", from, imported))
			}
		}
	}
	sort.Strings(wrong)
	return wrong
}

func mayImport(from, imported string, besides []string) bool {
	to, ours := strings.CutPrefix(imported, module+"/")
	if !ours {
		return true
	}
	rule, known := ruleOf(from)
	if !known {
		return false
	}
	for _, prefix := range append(append([]string{rule}, allowed[rule]...), besides...) {
		if within(to, prefix) {
			return true
		}
	}
	return false
}

// ruleOf returns the longest key of allowed that the package lies in.
func ruleOf(path string) (rule string, known bool) {
	for key := range allowed {
		if within(path, key) && (!known || len(key) > len(rule)) {
			rule, known = key, true
		}
	}
	return rule, known
}

func within(path, prefix string) bool { return path == prefix || strings.HasPrefix(path, prefix+"/") }
