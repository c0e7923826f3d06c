package nbd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
)

// TLSMode says whether clients may or must encrypt.
type TLSMode int

const (
	// TLSOff: a server without TLS, the standard's NOTLS.
	TLSOff TLSMode = iota
	// TLSAllow: clients that ask for it get it, SELECTIVETLS without an export that insists on it.
	TLSAllow
	// TLSRequire: a client is told nothing before it has encrypted, FORCEDTLS.
	TLSRequire
)

// TLS says how connections are encrypted.
type TLS struct {
	Mode   TLSMode
	Config *tls.Config // of the server; nil only with TLSOff
}

// Authenticates tells whether nobody gets in who has not shown a certificate.
func (t TLS) Authenticates() bool {
	return t.Mode == TLSRequire && t.Config.ClientAuth == tls.RequireAndVerifyClientCert
}

// Files of a server's certificates: the names that libnbd, nbdkit and QEMU have for them.
const (
	caFile          = "ca-cert.pem"
	certificateFile = "server-cert.pem"
	keyFile         = "server-key.pem"
)

// errCertificates: they cannot be used.
var errCertificates = errors.New("certificates of the NBD server")

// Certificates makes a server's configuration of the files in a folder: ca-cert.pem, server-cert.pem, server-key.pem. Unless clients are
// anonymous, each has to show a certificate that one in ca-cert.pem has signed. The files are read again for each connection, so that
// certificates can be renewed meanwhile.
func Certificates(dir string, anonymous bool) (*tls.Config, error) {
	c, err := readCertificates(dir, anonymous)
	if err != nil {
		return nil, err
	}
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) { return readCertificates(dir, anonymous) }
	return c, nil
}

func readCertificates(dir string, anonymous bool) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, certificateFile), filepath.Join(dir, keyFile))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCertificates, err)
	}
	c := &tls.Config{
		MinVersion:             tls.VersionTLS12, // which the standard asks for
		Certificates:           []tls.Certificate{pair},
		SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true, // connections last, and carry much
	}
	if anonymous {
		return c, nil
	}
	name := filepath.Join(dir, caFile)
	pem, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCertificates, err)
	}
	c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
	if !c.ClientCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%w: %s holds none", errCertificates, name)
	}
	return c, nil
}

// security is the state of TLS on a connection that negotiates.
type security struct {
	mode    TLSMode
	fixed   bool // the client knows fixed newstyle, without which there is no TLS
	begun   bool
	upgrade func(context.Context) (io.ReadWriter, error)
}

// missing says that the option must wait until the connection is encrypted.
func (s *security) missing(option uint32) bool {
	return s.mode == TLSRequire && !s.begun && option != optStartTLS && option != optAbort
}

// startTLS goes on encrypted, as if nothing had been negotiated before. What the client has sent unencrypted behind the option is taken for
// the beginning of the handshake, and fails it.
func (n *negotiation) startTLS(data []byte) error {
	switch {
	case n.begun:
		n.refuse(repErrInvalid, "the connection is encrypted already")
		return nil
	case n.mode == TLSOff || !n.fixed:
		n.refuse(repErrUnsup, "unknown option")
		return nil
	case len(data) > 0:
		n.refuse(repErrInvalid, "option takes no data")
		return nil
	}
	n.reply(repAck, nil)
	if err := n.send(); err != nil {
		return err
	}
	stream, err := n.upgrade(n.ctx)
	if err != nil {
		return fmt.Errorf("%w: %w", errTLS, err)
	}
	n.stream, n.begun = stream, true
	n.agreed = agreed{}
	return nil
}

// handshake encrypts nc.
func handshake(ctx context.Context, nc net.Conn, config *tls.Config) (*tlsLink, error) {
	f, err := newFeed(nc)
	if err != nil {
		return nil, err
	}
	c := tls.Server(f, config)
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return &tlsLink{conn: c, feed: f}, nil
}
