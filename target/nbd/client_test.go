package nbd

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"testing"

	"pstorage/blockstore/block"
)

// porter is a shelf that notes on whose behalf it is asked.
type porter struct {
	*shelf
	mu   sync.Mutex
	seen []Client
}

func (p *porter) Open(ctx context.Context, name string) (block.Device, block.VolumeInfo, error) {
	c, ok := ClientOf(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if ok {
		p.seen = append(p.seen, c)
	}
	return p.shelf.Open(ctx, name)
}

func (p *porter) took(t *testing.T, want Client) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.seen) != 1 || p.seen[0] != want {
		t.Errorf("asked for %+v, want %+v", p.seen, want)
	}
	p.seen = nil
}

// The catalog is told whose request it is: from where, and by which certificate, which counts only once the connection is encrypted.
func TestTheCatalogKnowsTheClient(t *testing.T) {
	p := &porter{shelf: demo(t)}
	a := newAuthority(t)
	config := secured(t, a, TLSAllow, p.shelf)
	config.Catalog = p
	server, path := startWith(t, config)
	connect(t, path, "demo", false).alive()
	p.took(t, Client{})
	connectTLS(t, path, a, terms{}).alive()
	p.took(t, Client{Certificate: "alice"})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(l)
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tcp := &peer{t, c}
	tcp.greet(flagFixedNewstyle | flagNoZeroes)
	tcp.enter("demo", terms{})
	tcp.alive()
	p.took(t, Client{Address: netip.MustParseAddr("127.0.0.1")})
}
