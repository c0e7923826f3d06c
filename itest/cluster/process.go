// Package cluster runs pstorage's daemons as processes of their own, for tests, measurements and the acceptance runs.
//
// # DESIGN
//
// Invariant: every process that was started here is ended by its own number, at the latest by Stop; should the starter die first,
// the kernel kills them (parent-death signal). Everything lives in one folder. Daemons are on free ports of the loopback, or each in a place of
// its own (a network namespace of itest/hosts).
//
// Goroutines: per process one that copies its standard output (of a Shell to Do, too) and then waits for its end.
package cluster

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// readyTime is how long a daemon may take until it says that it is ready: looking through many chunks takes time.
	readyTime = 60 * time.Second
	// stopTime is how long a daemon may take to end after SIGTERM; it is killed then, and Stop says so.
	stopTime = 10 * time.Second
)

// Process is a daemon that was started.
type Process struct {
	Name string
	Ways []string // the lines it printed before "ready"

	metrics  string // address of its page, or empty
	command  *exec.Cmd
	patience time.Duration     // how long it may take until it is ready
	heard    func(line string) // is given each line after "ready", unless nil
	done     chan struct{}     // closed when it has ended
	err      error             // of Wait, valid after done
	log      *os.File
}

// Start runs a command and waits for it to be ready. What it logs goes to logPath.
func Start(ctx context.Context, name, logPath string, env []string, command ...string) (*Process, error) {
	p, err := prepare(name, logPath, env, command...)
	if err != nil {
		return nil, err
	}
	return p, p.begin(ctx)
}

func prepare(name, logPath string, env []string, command ...string) (*Process, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	p := &Process{Name: name, log: log, patience: readyTime, done: make(chan struct{}), command: exec.Command(command[0], command[1:]...)}
	p.command.Env = append(os.Environ(), env...)
	p.command.Stderr = log
	p.command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return p, nil
}

func (p *Process) begin(ctx context.Context) error {
	out, err := p.command.StdoutPipe()
	if err == nil {
		err = p.command.Start()
	}
	if err != nil {
		return errors.Join(err, p.log.Close())
	}
	ready := make(chan bool, 1)
	go p.read(out, ready)
	return p.waitReady(ctx, ready)
}

// read collects lines until "ready", copies the rest into the log, and then waits for the end.
func (p *Process) read(out io.Reader, ready chan<- bool) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == "ready" {
			ready <- true
			break
		}
		p.Ways = append(p.Ways, lines.Text())
	}
	for lines.Scan() {
		fmt.Fprintln(p.log, lines.Text())
		if p.heard != nil {
			p.heard(lines.Text())
		}
	}
	p.err = p.command.Wait()
	_ = p.log.Close()
	close(p.done)
}

func (p *Process) waitReady(ctx context.Context, ready <-chan bool) error {
	ctx, cancel := context.WithTimeout(ctx, p.patience)
	defer cancel()
	select {
	case <-ready:
		return nil
	case <-p.done:
		return fmt.Errorf("%s ended at once: %w\n%s", p.Name, p.err, p.logTail())
	case <-ctx.Done():
		p.Kill()
		return fmt.Errorf("%s was not ready: %w\n%s", p.Name, ctx.Err(), p.logTail())
	}
}

// PID is the process's number.
func (p *Process) PID() int { return p.command.Process.Pid }

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error { return p.command.Process.Signal(s) }

// Pause stops the process and waits until all its threads stand still. Signal(SIGCONT) has it go on.
func (p *Process) Pause() error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for end := time.Now().Add(stopTime); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if stopped, err := p.standsStill(); stopped || err != nil {
			return err
		}
	}
	return fmt.Errorf("%s does not stop", p.Name)
}

// standsStill reads the state of each thread: the letter after the name, which is in brackets (proc_pid_stat(5)).
func (p *Process) standsStill() (bool, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.PID()))
	if err != nil || len(threads) == 0 {
		return false, fmt.Errorf("%s is gone: %w", p.Name, err)
	}
	for _, name := range threads {
		text, err := os.ReadFile(name)
		if at := bytes.LastIndexByte(text, ')'); err != nil || at < 0 || !bytes.HasPrefix(text[at:], []byte(") T")) {
			return false, nil // or the thread is gone
		}
	}
	return true, nil
}

// Kill ends the process as a crash would, and waits until it is gone.
func (p *Process) Kill() {
	_ = p.command.Process.Kill()
	<-p.done
}

// Stop ends the process in an orderly way and returns how long that took; an error if it ended otherwise, or had to be
// killed.
func (p *Process) Stop() (took time.Duration, err error) {
	select {
	case <-p.done:
		return 0, fmt.Errorf("%s had ended already: %v", p.Name, p.err)
	default:
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return 0, err
	}
	return p.Wait()
}

// Wait waits for the end of a process that was told to end.
func (p *Process) Wait() (took time.Duration, err error) {
	began := time.Now()
	timer := time.NewTimer(stopTime)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		p.Kill()
		return time.Since(began), fmt.Errorf("%s had to be killed after %v\n%s", p.Name, stopTime, p.logTail())
	}
	if p.err != nil {
		return time.Since(began), fmt.Errorf("%s: %w\n%s", p.Name, p.err, p.logTail())
	}
	return time.Since(began), nil
}

// Ended tells whether the process is gone.
func (p *Process) Ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// Story tells of each daemon whether it has ended, and the last lines of its log: what a failed test wants to show.
func (c *Cluster) Story() string {
	var out strings.Builder
	for _, p := range c.Processes() {
		state := "runs"
		if p.Ended() {
			state = fmt.Sprintf("has ended: %v", p.err)
		}
		fmt.Fprintf(&out, "%s %s\n%s\n", p.Name, state, p.logTail())
	}
	return out.String()
}

// logTail is the last lines of the log.
func (p *Process) logTail() string {
	text, err := os.ReadFile(p.log.Name())
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// Way returns the line among Ways that begins with a prefix, or "".
func (p *Process) Way(prefix string) string {
	for _, way := range p.Ways {
		if strings.HasPrefix(way, prefix) {
			return way
		}
	}
	return ""
}
