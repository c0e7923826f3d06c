package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/spf13/cobra"
)

func TestVolumeLifeInTheTerminal(t *testing.T) {
	s := newSession(t)
	var transcript strings.Builder
	for _, line := range []string{
		"create demo -s 10G",
		"create logs/web -s 1T --replicas 2 --chunk-size 16M --failure-domain disk --tier 1",
		"ls",
		"ls --json",
		"resize demo -s 20G",
		"set-attr demo replicas=2:2 tier=3",
		"get-attr demo",
		"rm demo --yes",
		"rm demo --yes",
		"stat",
	} {
		r := s.run("", strings.Fields(line)...)
		r.record(&transcript, "pstorage "+line)
	}
	golden(t, "session.txt", transcript.String())
}

func TestExitCodesTellWhatWentWrong(t *testing.T) {
	s := newSession(t)
	s.run("", "create", "there", "-s", "1G")
	for line, want := range map[string]int{
		"version":                            exitOK,
		"nonsense":                           exitUsage,
		"ls --nonsense":                      exitUsage,
		"ls a b":                             exitUsage,
		"create":                             exitUsage,
		"create x":                           exitUsage,
		"create x -s ten":                    exitUsage,
		"create x -s 0":                      exitUsage,
		"create x -s 513":                    exitUsage,
		"create / -s 1G":                     exitUsage,
		"create x -s 1G --replicas 0":        exitUsage,
		"create x -s 1G --replicas 2:3":      exitUsage,
		"create x -s 1G --replicas many":     exitUsage,
		"create x -s 1G --chunk-size 3M":     exitUsage,
		"create x -s 1G --chunk-size 1K":     exitUsage,
		"create x -s 1G --failure-domain no": exitUsage,
		"create x -s 1G --tier 4":            exitUsage,
		"make-cs -r d -j ssd":                exitUsage,
		"make-cs -r d -s 100":                exitUsage,
		"make-cs -r d -j ssd -s 8":           exitUsage,
		"configure-cs -r d -a ssd":           exitUsage,
		"configure-cs -r d -d -s 100":        exitUsage,
		"configure-cs -r d --force":          exitUsage,
		"configure-cs -r d -s 31":            exitUsage,
		"configure-cs -r d -s 0":             exitUsage,
		"create there -s 1G":                 exitRefused,
		"resize there":                       exitUsage,
		"resize missing -s 2G":               exitNotFound,
		"set-attr there":                     exitUsage,
		"set-attr there color=red":           exitUsage,
		"set-attr there replicas":            exitUsage,
		"set-attr missing replicas=3":        exitNotFound,
		"get-attr":                           exitUsage,
		"get-attr missing":                   exitNotFound,
		"rm missing --yes":                   exitNotFound,
		"rm there":                           exitRefused,
	} {
		r := s.run("", strings.Fields(line)...)
		if r.code != want {
			t.Errorf("pstorage %s: exit %d, want %d (%s)", line, r.code, want, r.err)
		}
		if (r.code == 0) != (r.err == "") {
			t.Errorf("pstorage %s: exit %d with message %q", line, r.code, r.err)
		}
	}
}

func TestClusterThatDoesNotAnswerSaysWhatToLookAt(t *testing.T) {
	s := newSession(t)
	for _, code := range []codes.Code{codes.Unavailable, codes.DeadlineExceeded} {
		s.meta.err = status.Error(code, "no leader")
		if r := s.run("", "stat"); r.code != exitUnreachable || !strings.Contains(r.err, "is mdsd running") {
			t.Errorf("%v: exit %d, %q", code, r.code, r.err)
		}
	}
}

func TestRemoveAsksFirst(t *testing.T) {
	s := newSession(t)
	s.tty = true
	for _, answer := range []string{"n\n", "\n", "", "maybe\n"} {
		s.run("", "create", "demo", "-s", "1G")
		if r := s.run(answer, "rm", "demo"); r.code != exitRefused || s.meta.files["/demo"] == nil || !strings.Contains(r.err, "1GB") {
			t.Errorf("answer %q: exit %d, %q", answer, r.code, r.err)
		}
	}
	if r := s.run("y\n", "rm", "demo"); r.code != exitOK || s.meta.files["/demo"] != nil {
		t.Errorf("answer y: exit %d, %q", r.code, r.err)
	}
}

func TestFoldersAreMadeAndRemovedWithoutAQuestion(t *testing.T) {
	s := newSession(t)
	if r := s.run("", "mkdir", "logs", "--replicas", "2:1"); r.code != exitOK || r.out != "created logs/\n" || !s.meta.files["/logs"].Directory {
		t.Error(r)
	}
	if r := s.run("", "mkdir", "logs"); r.code != exitRefused {
		t.Error(r)
	}
	if r := s.run("", "rm", "logs"); r.code != exitOK || s.meta.files["/logs"] != nil {
		t.Error(r)
	}
}

func TestRemoveWithoutATerminalNamesTheFlag(t *testing.T) {
	s := newSession(t)
	s.run("", "create", "demo", "-s", "1G")
	if r := s.run("y\n", "rm", "demo"); r.code != exitRefused || !strings.Contains(r.err, "--yes") || s.meta.files["/demo"] == nil {
		t.Errorf("exit %d, %q", r.code, r.err)
	}
}

func TestVolumeInUseIsRemovedOnlyByForce(t *testing.T) {
	s := newSession(t)
	s.run("", "create", "demo", "-s", "1G")
	s.meta.files["/demo"].Holder = "someone"
	if r := s.run("", "rm", "demo", "--yes"); r.code != exitRefused || s.meta.files["/demo"] == nil {
		t.Errorf("--yes: exit %d, %q", r.code, r.err)
	}
	if r := s.run("", "rm", "demo", "-f"); r.code != exitOK || s.meta.files["/demo"] != nil {
		t.Errorf("--force: exit %d, %q", r.code, r.err)
	}
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	for _, command := range (&app{}).root().Commands() {
		if command.Name() == "help" || command.Name() == "completion" {
			continue
		}
		if command.Short == "" || command.Example == "" {
			t.Errorf("%s: no description or no example", command.Name())
		}
		if r := newSession(t).run("", command.Name(), "--help"); r.code != exitOK || !strings.Contains(r.out, "Usage:") {
			t.Errorf("%s --help: exit %d, %q", command.Name(), r.code, r.out)
		}
	}
}

func TestExamplesParse(t *testing.T) {
	root := (&app{}).root()
	visit(root, func(command *cobra.Command) {
		for _, line := range strings.Split(command.Example, "\n") {
			line, _, _ = strings.Cut(line, "#")
			words := strings.Fields(line)
			if len(words) == 0 || words[0] != programName {
				continue
			}
			found, rest, err := root.Find(words[1:])
			if err == nil {
				err = found.ParseFlags(rest)
			}
			if err != nil {
				t.Errorf("example of %s does not parse: %s: %v", command.Name(), line, err)
			}
		}
	})
}

func visit(command *cobra.Command, f func(*cobra.Command)) {
	f(command)
	for _, sub := range command.Commands() {
		visit(sub, f)
	}
}

func TestOtherNamesOfTheBinaryAreSubcommands(t *testing.T) {
	for argv, want := range map[string]string{
		"/usr/bin/pstorage stat": "stat", "pstorage-mdsd -r x": "mdsd -r x", "pstorage-1.2 ls": "ls", "other ls": "ls", "pstorage": "",
	} {
		if got := strings.Join(arguments(strings.Fields(argv)), " "); got != want {
			t.Errorf("%s is pstorage %q, want %q", argv, got, want)
		}
	}
}

func TestCompletionIsWritten(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := newSession(t).run("", "completion", shell); r.code != exitOK || !strings.Contains(r.out, "pstorage") {
			t.Errorf("%s: exit %d, %s", shell, r.code, r.err)
		}
	}
}

func TestPasswordIsTakenTwiceOrFromAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret word\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	reader := func(words ...string) func() ([]byte, error) {
		return func() ([]byte, error) { w := words[0]; words = words[1:]; return []byte(w), nil }
	}
	for name, c := range map[string]struct {
		a    app
		ask  bool
		file string
		want string
		code int
	}{
		"file":      {app{}, false, file, "secret word", 0},
		"none":      {app{}, false, "", "", 0},
		"prompt":    {app{interactive: true, readPassword: reader("x", "x"), err: &strings.Builder{}}, true, "", "x", 0},
		"differing": {app{interactive: true, readPassword: reader("x", "y"), err: &strings.Builder{}}, true, "", "", exitUsage},
		"empty":     {app{interactive: true, readPassword: reader("", ""), err: &strings.Builder{}}, true, "", "", exitUsage},
		"no tty":    {app{}, true, "", "", exitUsage},
		"missing":   {app{}, false, file + "x", "", exitFailure},
	} {
		got, err := c.a.password(c.ask, c.file, true)
		if got != c.want || exitCode(err) != c.code {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
