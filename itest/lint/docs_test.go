package lint

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// named finds what the text on the architecture names in the code: tests, and files with their folder.
var (
	namedTest = regexp.MustCompile(`\bTest[A-Z]\w+`)
	namedFile = regexp.MustCompile("`((?:blockstore|cs|meta|target|cli|itest)/[\\w/]+\\.go)`")
)

func TestArchitectureNamesWhatExists(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(moduleDir, "docs/ARCHITECTURE.md"))
	if err != nil {
		t.Fatal(err)
	}
	source, err := Read(moduleDir)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]bool{}
	for _, f := range source.Functions {
		if _, name, _ := strings.Cut(f.Name, ": "); f.Test {
			tests[name] = true
		}
	}
	names := namedTest.FindAllString(string(text), -1)
	if len(names) < 12 {
		t.Errorf("only %d tests are named: each rule needs one", len(names))
	}
	for _, name := range names {
		if !tests[name] {
			t.Errorf("there is no test %s", name)
		}
	}
	for _, found := range namedFile.FindAllStringSubmatch(string(text), -1) {
		if _, there := source.Files[found[1]]; !there {
			t.Errorf("there is no file %s", found[1])
		}
	}
}
