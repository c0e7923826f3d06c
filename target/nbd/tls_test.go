package nbd

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pstorage/blockstore/block"
)

// authority signs certificates.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t}
	c := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, Subject: pkix.Name{CommonName: "test CA"}}
	der, key := a.sign(c)
	var err error
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.key = key
	return a
}

// sign makes a key and signs the certificate for it, with the new key itself if the authority has none.
func (a *authority) sign(c *x509.Certificate) (der []byte, key *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	a.last++
	c.SerialNumber = big.NewInt(a.last)
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(1000*time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	if der, err = x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer); err != nil {
		a.t.Fatal(err)
	}
	return der, key
}

func (a *authority) issue(name string, usage x509.ExtKeyUsage) (der []byte, key *ecdsa.PrivateKey) {
	return a.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	})
}

// client is a certificate for crypto/tls.
func (a *authority) client(name string) tls.Certificate {
	der, key := a.issue(name, x509.ExtKeyUsageClientAuth)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// write writes the authority's certificate, a server's and a client's to a folder.
func (a *authority) write() (dir string) {
	a.t.Helper()
	dir = a.t.TempDir()
	put := func(name, kind string, der []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	put(caFile, "CERTIFICATE", a.cert.Raw)
	for name, usage := range map[string]x509.ExtKeyUsage{"server": x509.ExtKeyUsageServerAuth, "client": x509.ExtKeyUsageClientAuth} {
		der, key := a.issue(name, usage)
		private, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			a.t.Fatal(err)
		}
		put(name+"-cert.pem", "CERTIFICATE", der)
		put(name+"-key.pem", "PRIVATE KEY", private)
	}
	return dir
}

// secured is the configuration of a server with the certificates of an authority.
func secured(t testing.TB, a *authority, mode TLSMode, s *shelf) Config {
	t.Helper()
	config, err := Certificates(a.write(), false)
	if err != nil {
		t.Fatal(err)
	}
	return Config{Catalog: s, TLS: TLS{Mode: mode, Config: config}}
}

// encrypt begins TLS on a connection that has been greeted.
func (p *peer) encrypt(config *tls.Config) {
	p.t.Helper()
	p.option(optStartTLS, nil)
	p.wantReply(optStartTLS, repAck)
	c := tls.Client(p.Conn, config)
	if err := c.Handshake(); err != nil {
		p.t.Fatal(err)
	}
	p.Conn = c
}

// connectTLS enters transmission encrypted.
func connectTLS(t testing.TB, path string, a *authority, terms terms) *peer {
	t.Helper()
	p := dial(t, path)
	p.greet(flagFixedNewstyle | flagNoZeroes)
	p.encrypt(a.clientConfig())
	p.enter("demo", terms)
	return p
}

func (a *authority) clientConfig() *tls.Config {
	return &tls.Config{RootCAs: a.pool(), ServerName: "localhost", Certificates: []tls.Certificate{a.client("alice")}}
}

func TestNegotiationBeginsAnewWithTLS(t *testing.T) {
	for _, mode := range []TLSMode{TLSAllow, TLSRequire} {
		a := newAuthority(t)
		_, path := startWith(t, secured(t, a, mode, demo(t)))
		p := dial(t, path)
		p.greet(flagFixedNewstyle | flagNoZeroes)
		if mode == TLSAllow {
			p.option(optExtendedHeaders, nil)
			p.wantReply(optExtendedHeaders, repAck)
			p.option(optSetMetaContext, queriesFor("demo", contextAllocation))
			p.wantReply(optSetMetaContext, repMetaContext)
			p.wantReply(optSetMetaContext, repAck)
		}
		p.encrypt(a.clientConfig())
		p.option(optStartTLS, nil)
		p.wantReply(optStartTLS, repErrInvalid)
		p.option(optSetMetaContext, queriesFor("demo", contextAllocation))
		p.wantReply(optSetMetaContext, repErrInvalid)
		p.option(optList, nil)
		p.wantReply(optList, repServer)
		p.wantReply(optList, repServer)
		p.wantReply(optList, repAck)
		p.enter("demo", terms{})
		p.alive()
	}
}

// TestEveryEncryptedRequestIsAnsweredOnce is TestEveryRequestIsAnsweredOnce through TLS.
func TestEveryEncryptedRequestIsAnsweredOnce(t *testing.T) {
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			a, g := newAuthority(t), newGate(block.NewMemory(64<<20))
			cfg := secured(t, a, TLSRequire, newShelf().add("demo", g, false))
			cfg.Limits.Requests = 24
			_, path := startWith(t, cfg)
			stop := completeAtRandom(g)
			defer stop()
			p := dial(t, path)
			p.greet(flagFixedNewstyle | flagNoZeroes)
			config := a.clientConfig()
			config.MaxVersion = version
			p.encrypt(config)
			p.enter("demo", extendedTerms)
			mixedLoad(t, p, extendedTerms)
		})
	}
}

func TestLargestRequestsWorkEncrypted(t *testing.T) {
	a := newAuthority(t)
	_, path := startWith(t, secured(t, a, TLSRequire, newShelf().add("demo", block.NewMemory(64<<20), false)))
	p := connectTLS(t, path, a, terms{})
	data := make([]byte, block.MaxTransfer)
	for i := range data {
		data[i] = byte(i >> 8)
	}
	p.request(header{cmd: cmdWrite, cookie: 1, offset: 1 << 20, length: block.MaxTransfer}, data)
	p.wantSimple(nbdOK, 1)
	p.request(header{cmd: cmdRead, cookie: 2, offset: 1 << 20, length: block.MaxTransfer}, nil)
	p.wantSimple(nbdOK, 2)
	if !bytes.Equal(p.read(len(data)), data) {
		t.Fatal("read differs from what was written")
	}
}

func TestOnlyCertifiedClientsGetIn(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	_, path := startWith(t, secured(t, a, TLSRequire, demo(t)))
	for name, certificates := range map[string][]tls.Certificate{"none": nil, "of another authority": {other.client("mallory")}} {
		p := dial(t, path)
		p.greet(flagFixedNewstyle | flagNoZeroes)
		p.option(optStartTLS, nil)
		p.wantReply(optStartTLS, repAck)
		config := a.clientConfig()
		config.Certificates = nil
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if len(certificates) == 0 {
				return new(tls.Certificate), nil
			}
			return &certificates[0], nil
		}
		c := tls.Client(p.Conn, config)
		_, _ = c.Write(encodeOption(optList, nil)) // a client may think that the handshake has gone well
		if n, err := c.Read(make([]byte, 1)); n > 0 || isTimeout(err) {
			t.Errorf("certificate %s: %d bytes, %v", name, n, err)
		}
	}
	connectTLS(t, path, a, terms{}).alive()
}

func TestCertificatesAreRenewedWithoutARestart(t *testing.T) {
	a, next := newAuthority(t), newAuthority(t)
	dir := a.write()
	config, err := Certificates(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	_, path := startWith(t, Config{Catalog: demo(t), TLS: TLS{Mode: TLSRequire, Config: config}})
	before := connectTLS(t, path, a, terms{})
	if err := os.CopyFS(dir+"-next", os.DirFS(next.write())); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{caFile, certificateFile, keyFile} {
		if err := os.Rename(filepath.Join(dir+"-next", name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	connectTLS(t, path, next, terms{}).alive()
	before.alive()
}

func TestCertificatesThatCannotWorkAreRefused(t *testing.T) {
	for _, name := range []string{caFile, certificateFile, keyFile} {
		dir := newAuthority(t).write()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("nothing"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Certificates(dir, false); !errors.Is(err, errCertificates) {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := newAuthority(t).write()
	if err := os.Remove(filepath.Join(dir, caFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := Certificates(dir, true); err != nil {
		t.Error("anonymous clients need no authority:", err)
	}
}

func TestSlowHandshakeIsEnded(t *testing.T) {
	cfg := secured(t, newAuthority(t), TLSRequire, demo(t))
	cfg.Limits.Negotiation = 50 * time.Millisecond
	_, path := startWith(t, cfg)
	p := dial(t, path)
	_, _ = p.Write(append([]byte{0, 0, 0, 3}, encodeOption(optStartTLS, nil)...))
	if _, err := io.Copy(io.Discard, p.Conn); isTimeout(err) { // the acknowledgement, if it got as far; then the end
		t.Error("the server waits for ever")
	}
}

// TestEncryptedClientIsToldOfTheEnd: without it, a client could not tell the end from somebody's cutting the connection.
func TestEncryptedClientIsToldOfTheEnd(t *testing.T) {
	a := newAuthority(t)
	_, path := startWith(t, secured(t, a, TLSRequire, demo(t)))
	p := connectTLS(t, path, a, terms{})
	p.request(header{cmd: cmdDisc}, nil)
	if n, err := p.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Error(n, err)
	}
}

// TestEncryptedClientThatNeverReadsIsNotReadFrom: what it makes the server hold is bounded, and others are served.
func TestEncryptedClientThatNeverReadsIsNotReadFrom(t *testing.T) {
	a := newAuthority(t)
	server, path := startWith(t, secured(t, a, TLSRequire, demo(t)))
	p := connectTLS(t, path, a, terms{})
	raw := p.Conn.(*tls.Conn).NetConn()
	flooded := make(chan struct{})
	go func() {
		defer close(flooded)
		many := bytes.Repeat(encodeRequest(header{cmd: cmdRead, length: 128 << 10}, nil), 1000)
		for {
			if _, err := p.Write(many); err != nil {
				return
			}
		}
	}()
	await(t, "the connection stops being read from", func() bool { return waiting(server) })
	if held := heldBy(server); held > defaultConnectionBytes {
		t.Errorf("%d bytes held for a client that never reads", held)
	}
	other := connectTLS(t, path, a, terms{})
	other.alive()
	other.Close()
	raw.Close()
	<-flooded
	await(t, "the connections end", func() bool { return heldBy(server) == 0 })
}

// hoard is a connection that keeps what is written.
type hoard struct {
	net.Conn
	out []byte
	on  bool
}

func (h *hoard) Write(b []byte) (int, error) {
	if !h.on {
		return h.Conn.Write(b)
	}
	h.out = append(h.out, b...)
	return len(b), nil
}

// tlsPair is a connection from both sides.
func tlsPair(t *testing.T) (h *hoard, client *tls.Conn, link *tlsLink) {
	t.Helper()
	a := newAuthority(t)
	config, err := Certificates(a.write(), false)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	h = &hoard{Conn: dial(t, l.Addr().String()).Conn}
	nc, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	client = tls.Client(h, a.clientConfig())
	done := make(chan error, 1)
	go func() { done <- client.Handshake() }()
	link, err = handshake(t.Context(), nc, config)
	if err = errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	return h, client, link
}

// TestRecordsThatCameTogetherAreReadTogether: a batch of requests, each in a record of its own, is one turn of the receiver.
func TestRecordsThatCameTogetherAreReadTogether(t *testing.T) {
	h, client, link := tlsPair(t)
	h.on = true
	want := bytes.Repeat([]byte("0123456789"), 30)
	for i := 0; i < len(want); i += 10 {
		if _, err := client.Write(want[i : i+10]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.Conn.Write(h.out[:len(h.out)-3]); err != nil { // the last record is not complete
		t.Fatal(err)
	}
	first, rest := make([]byte, 95), make([]byte, 1000)
	n, err := link.read(first, rest)
	if got := append(first, rest[:max(n-95, 0)]...); err != nil || !bytes.Equal(got[:n], want[:290]) {
		t.Fatalf("%d bytes, %v: %s", n, err, got)
	}
	if _, err := h.Conn.Write(h.out[len(h.out)-3:]); err != nil {
		t.Fatal(err)
	}
	if n, err = link.read(first, nil); err != nil || string(first[:n]) != "0123456789" {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// TestManySmallRepliesAreFewRecords: single replies, and large ones among them, arrive in order, at most a record for 8 KiB.
func TestManySmallRepliesAreFewRecords(t *testing.T) {
	h, client, link := tlsPair(t)
	link.feed.begin()
	var pieces []piece
	var want []byte
	for i := range 8000 {
		size := 16
		if i%2000 == 1999 {
			size = 40 << 10
		}
		data := bytes.Repeat([]byte{byte(i)}, size)
		pieces = append(pieces, piece{buffer: &buffer{data: data}, to: size})
		want = append(want, data...)
	}
	sizes := make(chan int, 1)
	counted := &meter{Conn: h.Conn}
	h.Conn = counted
	got := make([]byte, len(want))
	go func() {
		n, _ := io.ReadFull(client, got)
		sizes <- n
	}()
	c := &conn{link: link, server: New(Config{Catalog: newShelf()})}
	c.out = pieces
	c.sendOut(true)
	if n := <-sizes; n != len(want) || !bytes.Equal(got, want) {
		t.Fatalf("%d of %d bytes, or others", n, len(want))
	}
	if wrapping := counted.n - len(want); wrapping > len(want)/(8<<10)*100 {
		t.Errorf("%d bytes around %d", wrapping, len(want))
	}
}

// meter is a connection that counts what is read.
type meter struct {
	net.Conn
	n int
}

func (m *meter) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	m.n += n
	return n, err
}
