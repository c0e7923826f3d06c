package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"pstorage/cli/print"
	"pstorage/meta/targetpb"
)

// What a CHAP secret may have (RFC 7143, 12.1.3): 96 bits at least, one length byte at most.
const (
	minSecret = 12
	maxSecret = 255
)

// userFlag is -u of the commands about one CHAP account.
func (a *app) userFlag(cmd *cobra.Command, user *string) {
	cmd.Flags().StringVarP(user, "user", "u", "", "`NAME` of the CHAP account")
	_ = cmd.RegisterFlagCompletionFunc("user", a.completeAccounts)
}

func needUser(user string) error {
	if user == "" {
		return usagef("which account? Name it with -u, for example: -u user1")
	}
	return nil
}

// secret asks for a new CHAP secret, twice; without a terminal it is a line of standard input.
func (a *app) secret() ([]byte, error) {
	if !a.interactive {
		line, err := bufio.NewReader(io.LimitReader(a.in, maxSecret+3)).ReadBytes('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		return checkSecret(bytes.TrimRight(line, "\r\n"))
	}
	first, err := a.prompt("Enter password: ")
	if err != nil {
		return nil, err
	}
	second, err := a.prompt("Verify password: ")
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(first, second) {
		return nil, usagef("the two passwords differ")
	}
	return checkSecret(first)
}

func checkSecret(secret []byte) ([]byte, error) {
	if len(secret) < minSecret || len(secret) > maxSecret {
		return nil, usagef("a CHAP password has %d to %d bytes (Windows takes 16 at most)", minSecret, maxSecret)
	}
	return secret, nil
}

func (a *app) accountCreateCommand() *cobra.Command {
	return a.accountCommand("account-create", "Create a CHAP account",
		"Create a CHAP account, which targets are bound to with create -u or set -u. The password is asked for; without a terminal it is a line of standard input.",
		"create account", func(ctx context.Context, targets targetpb.TargetsClient, r *targetpb.AccountRequest) (*targetpb.Account, error) {
			return targets.CreateAccount(ctx, r)
		})
}

func (a *app) accountSetCommand() *cobra.Command {
	return a.accountCommand("account-set", "Change the password of a CHAP account",
		"Change the password of a CHAP account. It holds for logins from then on; sessions that are there stay. The password is asked for; without a terminal it is a line of standard input.",
		"set account", func(ctx context.Context, targets targetpb.TargetsClient, r *targetpb.AccountRequest) (*targetpb.Account, error) {
			return targets.SetAccount(ctx, r)
		})
}

func (a *app) accountCommand(name, short, long, what string, call func(context.Context, targetpb.TargetsClient, *targetpb.AccountRequest) (*targetpb.Account, error)) *cobra.Command {
	request := &targetpb.AccountRequest{}
	cmd := &cobra.Command{
		Use: name + " -u NAME", Short: short, Long: long,
		Example: fmt.Sprintf("  pstorage-iscsi -c pcs1 %s -u user1\n  head -c 12 /dev/urandom | base64 | pstorage-iscsi -c pcs1 %s -u user1", name, name),
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := needUser(request.User); err != nil {
				return err
			}
			if request.Secret, err = a.secret(); err != nil {
				return err
			}
			return a.withTargets(cmd, what+" "+request.User, func(ctx context.Context, targets targetpb.TargetsClient) error {
				account, err := call(ctx, targets, request)
				if err != nil || !a.json {
					return err
				}
				return print.JSON(a.out, print.NewAccounts([]*targetpb.Account{account})[0])
			})
		},
	}
	a.userFlag(cmd, &request.User)
	return cmd
}

func (a *app) accountListCommand() *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use: "account-list [-u NAME]", Short: "List CHAP accounts, or the targets that one is assigned to",
		Example: "  pstorage-iscsi -c pcs1 account-list\n  pstorage-iscsi -c pcs1 account-list -u user1",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withTargets(cmd, "list accounts", func(ctx context.Context, targets targetpb.TargetsClient) error {
				reply, err := targets.ListAccounts(ctx, &targetpb.ListAccountsRequest{User: user})
				if err != nil {
					return err
				}
				views := print.NewAccounts(reply.GetAccounts())
				if user != "" && len(views) != 1 {
					return coded(exitNotFound, fmt.Errorf("there is no account %s (%q shows them)", user, "pstorage-iscsi account-list"))
				}
				return a.show(views, func(w io.Writer) error { return accountLines(w, views, user != "") })
			})
		},
	}
	a.userFlag(cmd, &user)
	return cmd
}

// accountLines writes the accounts, or the targets of the one there is.
func accountLines(w io.Writer, accounts []print.Account, targets bool) error {
	var text bytes.Buffer
	for _, x := range accounts {
		if !targets {
			fmt.Fprintln(&text, x.User)
			continue
		}
		for _, name := range x.Targets {
			fmt.Fprintln(&text, name)
		}
	}
	_, err := w.Write(text.Bytes())
	return err
}

func (a *app) accountDeleteCommand() *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use: "account-delete -u NAME", Short: "Delete a CHAP account that no target uses",
		Example: "  pstorage-iscsi -c pcs1 account-delete -u user1",
		Args:    exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := needUser(user); err != nil {
				return err
			}
			return a.withTargets(cmd, "delete account "+user, func(ctx context.Context, targets targetpb.TargetsClient) error {
				_, err := targets.DeleteAccount(ctx, &targetpb.DeleteAccountRequest{User: user})
				return err
			})
		},
	}
	a.userFlag(cmd, &user)
	return cmd
}
