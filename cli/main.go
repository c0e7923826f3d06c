// Command pstorage is everything in one binary: the daemons, the tools of the administrator, and a whole cluster in
// one process (pstorage up).
//
// # DESIGN
//
// Commands stay thin: they parse, call one function of a room and print. What they show is made in cli/print, what
// daemons share in cli/daemon, the cluster in one process in cli/embedded.
//
// The binary answers to several names: called as pstorage-X it is `pstorage X`, so links can stand for sub-commands.
//
// Exit codes: see the constants in errors.go; `pstorage help exit-codes` shows them.
package main

import (
	"context"
	"os"

	"golang.org/x/term"
)

// version is set by the linker.
var version = "dev"

func main() {
	a := &app{
		in: os.Stdin, out: os.Stdout, err: os.Stderr, env: os.Getenv,
		interactive:  term.IsTerminal(int(os.Stdin.Fd())),
		readPassword: func() ([]byte, error) { return term.ReadPassword(int(os.Stdin.Fd())) },
		connect:      connectMeta, connectTargets: connectTargets, hold: holdVolumes,
	}
	os.Exit(a.run(context.Background(), arguments(os.Args)))
}
