package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"pstorage/itest/scenario"
)

// What libiscsi's suite of 230 must come to. What is left over, of version 1.19:
//   - LUNResetSimpleAsync fails with every target: it asserts what the answer sets before it has sent the request.
//   - Sanitize: CryptoErase, Readonly and Reservations are skipped, as there is no key to throw away.
//   - WriteSame10.ZeroBlocks, WriteSame16.ZeroBlocks: where no blocks stand for all that follow, UnmapUntilEnd has UNMAP with ones in the
//     data make zeros, but the standard ones.
const (
	leastPassed = 224
	mostFailed  = 1
	mostSkipped = 5
)

// disks are those that the suite is run against, each with the tests that only such a disk can pass. The first takes all the others.
var disks = []struct{ kind, tests string }{
	{"removable", ""},
	{"512e", `InvalidDataOutSize$|UnmapUnaligned$`},
	{"read-only", `^ALL\.ReadOnly\.`},
}

func (j *judge) conformance(ctx context.Context) (string, error) {
	left, err := scenario.ConformanceTests(ctx, `^ALL\.`)
	if err != nil {
		return "", err
	}
	var c scenario.Conformance
	for _, disk := range slices.Backward(disks) {
		var tests []string
		if tests, left, err = split(left, disk.tests); err == nil {
			err = j.conform(ctx, &c, disk.kind, tests)
		}
		if err != nil {
			return "", err
		}
	}
	for _, line := range c.Lines {
		fmt.Println("      " + line)
	}
	if c.Passed < leastPassed || c.Failed > mostFailed || c.Skipped > mostSkipped || c.Crashed > 0 {
		err = fmt.Errorf("%v; at least %d must pass, at most %d fail and %d be skipped, none crash", c, leastPassed, mostFailed, mostSkipped)
	}
	return c.String(), err
}

// split takes out the tests that the expression matches.
func split(tests []string, expression string) (matching, others []string, err error) {
	match, err := regexp.Compile(expression)
	if err != nil {
		return nil, nil, err
	}
	for _, test := range tests {
		if match.MatchString(test) {
			matching = append(matching, test)
		} else {
			others = append(others, test)
		}
	}
	return matching, others, nil
}

// conform runs tests against a disk of some kind, with two portals.
func (j *judge) conform(ctx context.Context, c *scenario.Conformance, kind string, tests []string) error {
	u, err := j.up(ctx, 1<<30, "--iscsi", "127.0.0.1:0,127.0.0.2:0", "--lun", kind)
	if err != nil {
		return err
	}
	logs := filepath.Join(j.dir, "conformance")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return errors.Join(err, stopUp(u, nil))
	}
	return stopUp(u, scenario.RunConformance(ctx, c, u.Paths("v"), tests, logs))
}
