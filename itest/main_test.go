// Package itest tests the program as its users have it: processes, real clients, crashes. Nothing here knows the
// insides.
//
//	go test ./itest            everything, as continuous integration runs it
//	go test -short ./itest     smaller amounts
//
// Each test has a folder and processes of its own, and ends them by their numbers.
package itest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"pstorage/itest/cluster"
	"pstorage/itest/scenario"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) { os.Exit(cluster.WithProgram(&binary, m.Run)) }

// testTime bounds each test: what hangs is to be seen as that.
const testTime = 4 * time.Minute

func newContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	return ctx
}

// amount is the size of something in a full run, or in a short one.
func amount[T any](full, short T) T {
	if testing.Short() {
		return short
	}
	return full
}

// need skips a test whose programs are not installed.
func need(t *testing.T, programs ...string) {
	t.Helper()
	if err := scenario.Need(programs...); err != nil {
		t.Skip(err)
	}
}

// pass fails the test unless err is nil or, for a scenario, says that a tool is missing.
func pass(t *testing.T, err error) {
	t.Helper()
	switch {
	case errors.Is(err, scenario.ErrTool):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
}

// newCluster starts a cluster of processes that ends with the test.
func newCluster(t *testing.T, o cluster.Options) *cluster.Cluster {
	t.Helper()
	c, err := cluster.New(newContext(t), binary, t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Story())
		}
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// newUp starts a cluster in one process that ends with the test, if the test has not ended it.
func newUp(t *testing.T, args ...string) *cluster.Up {
	t.Helper()
	return newUpIn(t, filepath.Join(t.TempDir(), "data"), args...)
}

func newUpIn(t *testing.T, dir string, args ...string) *cluster.Up {
	t.Helper()
	u, err := cluster.StartUp(newContext(t), binary, dir, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !u.Ended() {
			if _, err := u.Stop(); err != nil {
				t.Error(err)
			}
		}
	})
	return u
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
