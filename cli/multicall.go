package main

import (
	"path/filepath"
	"strings"
)

const programName = "pstorage"

// arguments turns what the process was called with into the arguments of the pstorage command: the name pstorage-X
// stands for the sub-command X.
func arguments(argv []string) []string {
	if len(argv) == 0 {
		return nil
	}
	if sub, ok := strings.CutPrefix(filepath.Base(argv[0]), programName+"-"); ok && isSubcommand(sub) {
		return append([]string{sub}, argv[1:]...)
	}
	return argv[1:]
}

// isSubcommand keeps a binary that was merely renamed (pstorage-1.2, pstorage-linux) working as pstorage.
func isSubcommand(name string) bool {
	for _, command := range (&app{}).root().Commands() {
		if command.Name() == name {
			return true
		}
	}
	return false
}
