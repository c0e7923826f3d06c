package itest

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// answer is what a command said.
type answer struct {
	code     int
	out, err string
}

// invoke runs the program without a terminal, on a root of its own.
func invoke(t *testing.T, root string, args ...string) answer {
	t.Helper()
	command := exec.CommandContext(newContext(t), binary, args...)
	command.Env = append(os.Environ(), "PSTORAGE_ROOT="+root, "HOME="+root)
	command.WaitDelay = time.Second
	var out, errs bytes.Buffer
	command.Stdout, command.Stderr = &out, &errs
	err := command.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return answer{command.ProcessState.ExitCode(), out.String(), errs.String()}
}

func TestBadInputIsAUsageErrorThatSaysWhy(t *testing.T) {
	root := t.TempDir()
	file := filepath.Join(root, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, why := range map[string]string{
		"frobnicate":                                 "no command",
		"ls --colour":                                "unknown flag",
		"up --cs 0":                                  "1 to",
		"up --cs many":                               "invalid argument",
		"up --replicas 2:3":                          "MIN",
		"up --volume demo":                           "NAME=SIZE",
		"up --volume demo=lots":                      "not a size",
		"up --chunk-size 5M":                         "power of two",
		"up --nbd 0.0.0.0:10809":                     "--insecure-network",
		"up --iscsi nowhere":                         "not an address",
		"up --lun 512e,round":                        "--lun round",
		"up --mds 192.0.2.1:2510":                    "--insecure-network",
		"up --log-level shout":                       "log-level",
		"up extra":                                   "unexpected",
		"make-mds -I -r " + root + "/m":              "which cluster",
		"-c bad/name make-mds -I -r " + root + "/m":  "name",
		"-c pcs1 make-mds -r " + root + "/m":         "-I",
		"-c pcs1 make-mds -I":                        "which folder",
		"-c pcs1 make-mds -I -p -r " + root + "/m":   "terminal",
		"-c pcs1 make-mds -I -a 1.2.3.4 -r " + root:  "--insecure-network",
		"-c pcs1 make-mds -I -a host:x:y -r " + root: "not an address",
		"-c pcs1 mdsd -r " + root + "/none":          "no such folder",
		"-c pcs1 mdsd":                               "which folder",
		"-c pcs1 make-cs":                            "which folder",
		"-c pcs1 make-cs -r " + root + "/c":          "name one with -b",
		"-c pcs1 make-cs -r x -b h:0 -a 127.0.0.1:0": "address",
		"-c pcs1 csd -r " + root + "/none":           "no such folder",
		"-c pcs1 targetd":                            "name one with -b",
		"-b 127.0.0.1 targetd --nbd 0.0.0.0:1":       "--insecure-network",
		"-c pcs1 ls":                                 "name one with -b",
		"create demo":                                "-s",
		"create demo -s 1X":                          "not a size",
		"create demo -s 1000":                        "multiple of 512",
		"resize demo -s -1":                          "not a size",
		"set-attr demo replicas":                     "NAME=VALUE",
		"set-attr demo shade=blue":                   "no attribute",
		"cs-check":                                   "DIR",
		"cs-dump":                                    "DIR",
		"list-services":                              "which cluster",
		"bench-target --size none":                   "not a size",
		"bench-target --nbd-tls perhaps":             "off, allow, require",
		"bench-target --nbd-tls allow":               "--nbd-tls-certificates",
		"bench-target --nbd-tls-certificates x":      "--nbd-tls",
	} {
		got := invoke(t, root, strings.Fields(line)...)
		if got.code != 2 || !strings.Contains(got.err, why) || got.out != "" {
			t.Errorf("pstorage %s: exit %d, %q (want exit 2 and %q), output %q", line, got.code, got.err, why, got.out)
		}
	}
}

func TestClusterOutOfReachHasItsOwnExitCode(t *testing.T) {
	got := invoke(t, t.TempDir(), "-b", "127.0.0.1:1", "--timeout", "300ms", "stat")
	if got.code != 4 || !strings.Contains(got.err, "mdsd") {
		t.Errorf("exit %d, %q", got.code, got.err)
	}
}

func TestWhatIsNoChunkServerIsNotChecked(t *testing.T) {
	for _, command := range []string{"cs-check", "cs-dump"} {
		if got := invoke(t, t.TempDir(), command, t.TempDir()); got.code == 0 || got.err == "" {
			t.Errorf("%s of an empty folder: exit %d, %q", command, got.code, got.err)
		}
	}
}

func TestVersionAndHelpNeedNothing(t *testing.T) {
	for _, line := range []string{"version", "version --json", "--help", "help up", "completion bash", "up --help"} {
		if got := invoke(t, t.TempDir(), strings.Fields(line)...); got.code != 0 || got.out == "" || got.err != "" {
			t.Errorf("pstorage %s: exit %d, %q", line, got.code, got.err)
		}
	}
}
