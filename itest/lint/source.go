package lint

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"sort"
	"strings"
)

// Limits of size. The habit is far below them: median function 8 to 15 lines, nine in ten under 40, files under 300.
const (
	maxFileLines     = 500
	maxTestLines     = 800 // of a file of tests
	maxFunctionLines = 100
	maxMedianLines   = 15
	maxNinthLines    = 40
)

// Function is one function's place and length.
type Function struct {
	Name  string
	Lines int
	Test  bool
}

// Source is what was found in the module's Go files; generated ones are left out.
type Source struct {
	Functions []Function
	Files     map[string]int // lines
	Habits    []string       // habits not kept, as sentences
}

// Read parses all Go files below dir.
func Read(dir string) (*Source, error) {
	s := &Source{Files: map[string]int{}}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (strings.HasPrefix(entry.Name(), ".") && path != dir || entry.Name() == "testdata"):
			return filepath.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, ".go"):
			return nil
		}
		return s.readFile(dir, path)
	})
	return s, err
}

func (s *Source) readFile(dir, path string) error {
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, path, nil, parser.ParseComments)
	if err != nil {
		return err
	}
	if ast.IsGenerated(file) {
		return nil
	}
	name, err := filepath.Rel(dir, path)
	if err != nil {
		return err
	}
	s.Files[name] = set.Position(file.End()).Line
	test := strings.HasSuffix(name, "_test.go")
	for _, declaration := range file.Decls {
		if f, ok := declaration.(*ast.FuncDecl); ok {
			lines := set.Position(f.End()).Line - set.Position(f.Pos()).Line + 1
			s.Functions = append(s.Functions, Function{name + ": " + f.Name.Name, lines, test})
		}
	}
	s.checkHabits(set, file, name, test)
	return nil
}

// checkHabits looks for what the project does without: ends of the process from within, notes of work not done.
func (s *Source) checkHabits(set *token.FileSet, file *ast.File, name string, test bool) {
	complain := func(at token.Pos, what string) {
		s.Habits = append(s.Habits, fmt.Sprintf("%s:%d: %s", name, set.Position(at).Line, what))
	}
	ast.Inspect(file, func(node ast.Node) bool {
		call, ok := node.(*ast.SelectorExpr)
		if !ok || test || file.Name.Name == "main" {
			return true
		}
		if base, ok := call.X.(*ast.Ident); ok && (base.Name == "os" && call.Sel.Name == "Exit" || base.Name == "log" && strings.HasPrefix(call.Sel.Name, "Fatal")) {
			complain(call.Pos(), "only a main function may end the process")
		}
		return true
	})
	for _, group := range file.Comments {
		for _, comment := range group.List {
			if strings.Contains(comment.Text, "TO"+"DO") || strings.Contains(comment.Text, "FIX"+"ME") {
				complain(comment.Pos(), "a note of work not done: do it, or open an issue")
			}
		}
	}
}

// Quantile returns the length that the given part of the functions stays within, tests left out.
func (s *Source) Quantile(part float64) int {
	var lengths []int
	for _, f := range s.Functions {
		if !f.Test {
			lengths = append(lengths, f.Lines)
		}
	}
	if len(lengths) == 0 {
		return 0
	}
	sort.Ints(lengths)
	return lengths[int(part*float64(len(lengths)-1))]
}

// Oversized returns a sentence for each file and function beyond the limits, sorted.
func (s *Source) Oversized() (wrong []string) {
	for name, lines := range s.Files {
		limit := maxFileLines
		if strings.HasSuffix(name, "_test.go") {
			limit = maxTestLines
		}
		if lines > limit {
			wrong = append(wrong, fmt.Sprintf("%s has %d lines; the limit is %d", name, lines, limit))
		}
	}
	for _, f := range s.Functions {
		if f.Lines > maxFunctionLines {
			wrong = append(wrong, fmt.Sprintf("%s has %d lines; the limit is %d", f.Name, f.Lines, maxFunctionLines))
		}
	}
	sort.Strings(wrong)
	return wrong
}

// Report describes sizes in a few lines.
func (s *Source) Report() string {
	longest := append([]Function(nil), s.Functions...)
	sort.Slice(longest, func(i, j int) bool { return longest[i].Lines > longest[j].Lines })
	lines, tests := 0, 0
	for name, n := range s.Files {
		if strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "itest/") {
			tests += n
		} else {
			lines += n
		}
	}
	report := fmt.Sprintf("%d files, %d lines of code, %d lines of tests; functions: median %d lines, nine in ten within %d\n",
		len(s.Files), lines, tests, s.Quantile(.5), s.Quantile(.9))
	for i := 0; i < len(longest) && i < 5; i++ {
		report += fmt.Sprintf("  %3d %s\n", longest[i].Lines, longest[i].Name)
	}
	return report
}
