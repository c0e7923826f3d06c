package main

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"pstorage/cli/daemon"
	"pstorage/target/nbd"
)

// nbdFlags say where NBD is served, and how it is encrypted.
type nbdFlags struct {
	addresses    []string
	tls          string
	certificates string
	anonymous    bool
	only         bool
}

func (f *nbdFlags) add(cmd *cobra.Command, addresses ...string) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.addresses, "nbd", addresses, "`ADDR` for NBD, HOST:PORT or unix:PATH; several apart by commas; empty: none")
	flags.StringVar(&f.tls, "nbd-tls", "off", "encryption of NBD: off, allow or require")
	flags.StringVar(&f.certificates, "nbd-tls-certificates", "", "`DIR` with server-cert.pem, server-key.pem and ca-cert.pem, which signs the certificates that clients show")
	flags.BoolVar(&f.anonymous, "nbd-tls-anonymous", false, "encrypt, but let clients in without a certificate")
}

// addExports adds what a cluster's front ends need besides.
func (f *nbdFlags) addExports(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.only, "nbd-only-exports", false, "serve over NBD what was exported (pstorage nbd export), and nothing else")
}

// tlsModes are the values of --nbd-tls.
var tlsModes = []string{nbd.TLSOff: "off", nbd.TLSAllow: "allow", nbd.TLSRequire: "require"}

// check looks at the flags before anything is made of them. Addresses other than loopback are for clients that are authenticated.
func (f *nbdFlags) check(a *app) (t nbd.TLS, err error) {
	mode := slices.Index(tlsModes, f.tls)
	switch {
	case mode < 0:
		return t, usagef("--nbd-tls %s: must be one of %s", f.tls, strings.Join(tlsModes, ", "))
	case mode > 0 && f.certificates == "":
		return t, usagef("--nbd-tls %s needs --nbd-tls-certificates", f.tls)
	case mode == 0 && (f.certificates != "" || f.anonymous):
		return t, usagef("certificates are of no use without --nbd-tls allow or require")
	}
	if t.Mode = nbd.TLSMode(mode); mode > 0 {
		if t.Config, err = nbd.Certificates(f.certificates, f.anonymous); err != nil {
			return t, err
		}
	}
	for _, address := range f.addresses {
		if strings.HasPrefix(address, "unix:") || address == "" {
			continue
		}
		if err := daemon.CheckAddress(address, a.insecure || t.Authenticates()); err != nil {
			return t, coded(exitUsage, err)
		}
	}
	return t, nil
}
