package cluster

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	// bootTime is how long a guest may take to boot: every instruction of it is emulated, maybe beside another guest.
	bootTime = 4 * time.Minute
	// answerMark begins the line that ends what a command printed, with its exit code behind (itest/lab/guest-shell.sh).
	answerMark = "=> "
)

// Shell is a virtual machine that runs commands one at a time. One goroutine at a time uses it.
type Shell struct {
	*Process

	in      io.Writer
	printed strings.Builder // of the command that runs; Process.read's
	answers chan answer     // room for one: of the command that runs
}

type answer struct {
	out  string
	code int
}

// BootShell boots a guest whose script says what its commands are, and ends with guest-shell.sh. What it keeps is in dir; options
// are those of the guest script, and enter is what the command line begins with.
func BootShell(ctx context.Context, enter []string, lab, dir, script string, options ...string) (*Shell, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	line := append(enter[:len(enter):len(enter)], filepath.Join(lab, "guest"), "boot", "-w", dir, "-f", filepath.Join(lab, "guest-shell.sh"))
	line = append(append(line, options...), filepath.Join(lab, script))
	p, err := prepare(filepath.Base(dir), filepath.Join(dir, "log"), nil, line...)
	if err != nil {
		return nil, err
	}
	s := &Shell{Process: p, answers: make(chan answer, 1)}
	p.heard = s.hear
	if s.in, err = p.command.StdinPipe(); err != nil {
		return nil, err
	}
	if err := p.boot(ctx, dir); err != nil {
		return nil, err
	}
	return s, nil
}

// hear takes a line that the guest has printed.
func (s *Shell) hear(line string) {
	code, isEnd := strings.CutPrefix(line, answerMark)
	if !isEnd {
		s.printed.WriteString(line + "\n")
		return
	}
	a := answer{out: strings.TrimSpace(s.printed.String())}
	s.printed.Reset()
	var err error
	if a.code, err = strconv.Atoi(code); err != nil {
		a.code = -1
	}
	select {
	case s.answers <- a:
	default: // nobody waits any more
	}
}

// Do runs a command in the guest and returns what it has printed; an error, with that, if its exit code is not 0.
func (s *Shell) Do(ctx context.Context, command string) (string, error) {
	fmt.Fprintln(s.log, "+", command)
	if _, err := io.WriteString(s.in, command+"\n"); err != nil {
		return "", fmt.Errorf("%s: %s: %w", s.Name, command, err)
	}
	select {
	case a := <-s.answers:
		if a.code != 0 {
			return a.out, fmt.Errorf("%s: %s: exit code %d\n%s", s.Name, command, a.code, a.out)
		}
		return a.out, nil
	case <-s.done:
		return "", fmt.Errorf("%s: %s: the guest has ended", s.Name, command)
	case <-ctx.Done():
		return "", fmt.Errorf("%s: %s: no answer: %w", s.Name, command, ctx.Err())
	}
}
