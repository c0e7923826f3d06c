package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// WithProgram builds the program in a folder of its own, says where it is, has the tests run, and removes it. It returns the exit code.
func WithProgram(path *string, run func() int) int {
	dir, err := os.MkdirTemp("", "pstorage-itest-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	*path = filepath.Join(dir, "pstorage")
	build := exec.Command("go", "build", "-o", *path, "pstorage/cli")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		return 1
	}
	return run()
}
