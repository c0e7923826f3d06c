package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConversionsThatMeanNothingAreRefused(t *testing.T) {
	s := newSession(t)
	s.run("", "create", "demo", "-s", "1M")
	there := filepath.Join(t.TempDir(), "there.img")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]struct {
		code int
		why  string
	}{
		"convert a b":                              {exitUsage, "one of the two"},
		"convert volume:a volume:b":                {exitUsage, "one of the two"},
		"convert volume:demo":                      {exitUsage, "TO is missing"},
		"convert volume:demo x --format vmdk":      {exitUsage, "raw, qcow2 or ploop"},
		"convert x volume:":                        {exitUsage, "needs a name"},
		"convert volume:demo " + there:             {exitRefused, "there already"},
		"convert volume:nowhere@x x":               {exitNotFound, "no such snapshot"},
		"convert x volume:demo --replicas 1:2:3:4": {exitUsage, "replicas"},
	} {
		if r := s.run("", strings.Fields(line)...); r.code != want.code || !strings.Contains(r.err, want.why) {
			t.Errorf("%s: exit %d, %s", line, r.code, r.err)
		}
	}
	for file, want := range map[string]string{"a.qcow2": "qcow2", "a.hds": "parallels", "a.ploop": "parallels", "a.img": "raw", "a": "raw"} {
		if got, err := imageFormat("", file); got != want || err != nil {
			t.Errorf("%s: %s, %v", file, got, err)
		}
	}
}
