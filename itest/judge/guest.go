package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// guestScript boots a guest with a kernel of its own; see itest/lab/guest.
const guestScript = "itest/lab/guest"

func (j *judge) guestISCSI(ctx context.Context) (string, error) {
	return j.guest(ctx, "itest/lab/guest-iscsi.sh", "the Linux kernel's iSCSI initiator: ext4, data, trim, fsck, log out and in again")
}

func (j *judge) guestNBD(ctx context.Context) (string, error) {
	return j.guest(ctx, "itest/lab/guest-nbd.sh", "the Linux kernel's NBD client: ext4, data, trim, fsck, detach and attach again")
}

// guest runs a script in a guest, next to a cluster, both in a network of their own: what the guest reaches as the host's loopback is
// that cluster and nothing else.
func (j *judge) guest(ctx context.Context, script, what string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Minute)
	defer cancel()
	inside := fmt.Sprintf(`set -e
ip link set lo up
%[1]q up --data %[2]q/data --volume v=1G > %[2]q/ways 2> %[2]q/up.log &
up=$!
trap 'kill $up; wait $up' EXIT
for i in $(seq 300); do grep -qx ready %[2]q/ways && break; kill -0 $up; sleep 0.1; done
%[3]q run %[4]q`, j.binary, j.dir, guestScript, script)
	command := exec.CommandContext(ctx, "unshare", "-n", "bash", "-c", inside)
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	command.Cancel = func() error { return command.Process.Signal(syscall.SIGTERM) }
	command.WaitDelay = 20 * time.Second
	out, err := command.CombinedOutput()
	if writeErr := os.WriteFile(filepath.Join(j.dir, "guest.log"), out, 0o644); err == nil {
		err = writeErr
	}
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return "", fmt.Errorf("%w: %s", err, strings.Join(lines[max(0, len(lines)-10):], "\n      "))
	}
	return what, nil
}
