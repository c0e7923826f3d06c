// Package scenario has what is done to a running cluster from outside, with real clients: copies, fio, the conformance suite,
// crashes. Tests run it small, the acceptance runs (itest/judge) in full.
package scenario

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// wholeTime is what a cluster may take to have all replicas again after faults.
const wholeTime = 2 * time.Minute

// ErrTool: a program that the scenario drives is not installed.
var ErrTool = errors.New("not installed (make test installs it)")

// Need says which of the programs is missing.
func Need(programs ...string) error {
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s: %w", program, ErrTool)
		}
	}
	return nil
}

// run executes a program and returns what it printed. It is killed with the context, and with us.
func run(ctx context.Context, name string, args ...string) (string, error) {
	if err := Need(name); err != nil {
		return "", err
	}
	command := exec.CommandContext(ctx, name, args...)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	command.WaitDelay = 5 * time.Second
	out, err := command.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, tail(string(out), 20))
	}
	return string(out), nil
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// RandomFile fills a file with random bytes and returns their SHA-256.
func RandomFile(path string, bytes int64) (sum [sha256.Size]byte, err error) {
	file, err := os.Create(path)
	if err != nil {
		return sum, err
	}
	hash := sha256.New()
	_, err = io.CopyN(io.MultiWriter(file, hash), rand.Reader, bytes)
	return [sha256.Size]byte(hash.Sum(nil)), errors.Join(err, file.Close())
}

// SumFile returns the SHA-256 of a file's first bytes; the file must have at least as many.
func SumFile(path string, bytes int64) (sum [sha256.Size]byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return sum, err
	}
	defer file.Close()
	hash := sha256.New()
	if _, err := io.CopyN(hash, file, bytes); err != nil {
		return sum, fmt.Errorf("%s: %w", path, err)
	}
	return [sha256.Size]byte(hash.Sum(nil)), nil
}
