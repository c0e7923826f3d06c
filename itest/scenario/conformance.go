package scenario

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Conformance is the outcome of libiscsi's test suite.
type Conformance struct {
	Passed, Failed, Skipped, Crashed int
	Lines                            []string // one per test that did not pass
}

func (c Conformance) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped, %d crashed or timed out", c.Passed, c.Failed, c.Skipped, c.Crashed)
}

// testTime is what a test may take. One sleeps for a minute in its midst.
func testTime(test string) time.Duration {
	if test == "ALL.Sanitize.Reset" {
		return 150 * time.Second
	}
	return 60 * time.Second
}

// ConformanceTests lists the suite's tests whose names the expression matches.
func ConformanceTests(ctx context.Context, expression string) (names []string, err error) {
	match, err := regexp.Compile(expression)
	if err != nil {
		return nil, err
	}
	out, err := run(ctx, "iscsi-test-cu", "-l")
	if err != nil {
		return nil, err
	}
	for _, name := range strings.Fields(out) {
		// FAMILY.SUITE.TEST; the other families are subsets of ALL. Some suites lie in families of their own.
		if strings.Count(name, ".") == 2 && match.MatchString(name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// RunConformance runs the tests against a LUN, whose data they destroy, each in a process of its own: one that hangs must not hide
// the others. It adds to c. logs is a folder for what they print. paths are two URLs of the LUN.
func RunConformance(ctx context.Context, c *Conformance, paths, tests []string, logs string) error {
	if err := Need("iscsi-test-cu"); err != nil {
		return err
	}
	for _, test := range tests {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		out, status := runConformanceTest(ctx, paths, test)
		if err := os.WriteFile(filepath.Join(logs, test+".log"), []byte(out), 0o644); err != nil {
			return err
		}
		c.count(test, out, status)
	}
	return nil
}

func runConformanceTest(ctx context.Context, paths []string, test string) (out, status string) {
	ctx, cancel := context.WithTimeout(ctx, testTime(test))
	defer cancel()
	args := append([]string{"-d", "-S", "-n", "-t", test}, paths...)
	command := exec.CommandContext(ctx, "iscsi-test-cu", args...)
	command.WaitDelay = time.Second
	text, err := command.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		return string(text), "timeout"
	case err != nil && command.ProcessState.ExitCode() < 0:
		return string(text), "crash"
	}
	return string(text), ""
}

// summaryLine: total, ran, passed, failed, inactive.
var summaryLine = regexp.MustCompile(`tests\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)`)

// spoilt fails by its own fault with every target, and has damaged its memory by then: about every other time its process is aborted for that.
const spoilt = "ALL.iSCSITMF.LUNResetSimpleAsync"

func (c *Conformance) count(test, out, status string) {
	counts := summaryLine.FindStringSubmatch(out)
	switch {
	case test == spoilt && status == "crash":
		c.Failed++
		c.note("failed", test, out)
	case status != "" || counts == nil:
		c.Crashed++
		c.note("crashed", test, out+"\n"+status)
	case number(counts[4]) > 0:
		c.Failed++
		c.note("failed", test, out)
	case strings.Contains(out, "[SKIPPED]") || number(counts[3]) == 0:
		c.Skipped++
		c.note("skipped", test, out)
	default:
		c.Passed++
	}
}

func number(text string) int {
	n, _ := strconv.Atoi(text)
	return n
}

// note keeps the first line that tells why.
func (c *Conformance) note(verdict, test, out string) {
	reason := tail(out, 1)
	for _, line := range strings.Split(out, "\n") {
		if strings.Contains(line, "[FAILED]") || strings.Contains(line, "[SKIPPED]") {
			reason = line
			break
		}
	}
	c.Lines = append(c.Lines, fmt.Sprintf("%-8s %s  %s", verdict, test, strings.TrimSpace(reason)))
}
