package lint

import (
	"testing"
)

const moduleDir = "../.."

func TestImportsRunDownwards(t *testing.T) {
	packages, err := Packages(moduleDir)
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) == 0 {
		t.Fatal("no packages found")
	}
	for _, sentence := range Upward(packages) {
		t.Error(sentence)
	}
}

func TestAnUpwardImportIsSeen(t *testing.T) {
	wrong := Upward([]Package{
		{ImportPath: "pstorage/cs/store", Imports: []string{"pstorage/target/nbd", "pstorage/cs/chunk", "fmt"}},
		{ImportPath: "pstorage/meta", TestImports: []string{"pstorage/cli", "pstorage/meta/metapb"}},
		{ImportPath: "pstorage/brandnew", Imports: []string{"pstorage/meta"}},
		{ImportPath: "pstorage/cs/wire", Imports: []string{"pstorage/cs/wirelike"}},
	})
	if len(wrong) != 4 {
		t.Errorf("found %d: %q; want one per package", len(wrong), wrong)
	}
}

func TestFunctionsAndFilesStaySmall(t *testing.T) {
	source, err := Read(moduleDir)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(source.Report())
	for _, sentence := range source.Oversized() {
		t.Error(sentence)
	}
	if median := source.Quantile(.5); median > maxMedianLines {
		t.Errorf("the median function has %d lines; the limit is %d", median, maxMedianLines)
	}
	if ninth := source.Quantile(.9); ninth > maxNinthLines {
		t.Errorf("nine in ten functions are within %d lines; the limit is %d", ninth, maxNinthLines)
	}
}

func TestHabitsAreKept(t *testing.T) {
	source, err := Read(moduleDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, sentence := range source.Habits {
		t.Error(sentence)
	}
}
