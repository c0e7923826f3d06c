package metatest

import (
	"bytes"
	"context"
	"slices"
	"testing/synctest"
	"time"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
)

// Client is a client that opens files.
type Client struct {
	c  *Cluster
	ID *metapb.Client
}

// Client returns a client; the letter is its identity.
func (c *Cluster) Client(letter byte, incarnation uint64) *Client {
	return &Client{c, &metapb.Client{Id: bytes.Repeat([]byte{letter}, fsm.ClientIDSize), Incarnation: incarnation, Host: "client-" + string(letter)}}
}

// Volume is a file that a client holds.
type Volume struct {
	*Client
	File   uint64
	Epoch  uint64
	Losses uint64
}

// TryOpen opens a file once.
func (c *Client) TryOpen(path string) (*Volume, error) {
	r, err := c.c.Leader().Open(context.Background(), &metapb.OpenRequest{Client: c.ID, Path: path, Over: true})
	if err != nil {
		return nil, err
	}
	return &Volume{c, r.File.Id, r.Epoch, r.File.Losses}, nil
}

// Open opens a file, which must work.
func (c *Client) Open(path string) *Volume {
	c.c.T.Helper()
	v, err := c.TryOpen(path)
	if err != nil {
		c.c.T.Fatal(err)
	}
	return v
}

// Settle says that the file is fenced and reconciled.
func (v *Volume) Settle() {
	v.c.T.Helper()
	if _, err := v.c.Leader().Settled(context.Background(), &metapb.SettledRequest{Client: v.ID, File: v.File, Epoch: v.Epoch}); err != nil {
		v.c.T.Fatal(err)
	}
}

// Renew renews; it tells whether the lease is still there.
func (v *Volume) Renew() (bool, error) {
	r, err := v.c.Leader().Renew(context.Background(), &metapb.RenewRequest{Client: v.ID, Held: []*metapb.Held{{File: v.File, Epoch: v.Epoch}}})
	return err == nil && len(r.Lost) == 0, err
}

// Allocate makes chunks 0 to n-1, which must work.
func (v *Volume) Allocate(n int) []*metapb.Chunk {
	v.c.T.Helper()
	chunks, err := v.TryAllocate(n)
	if err != nil {
		v.c.T.Fatal(err)
	}
	return chunks
}

// TryAllocate makes chunks 0 to n-1.
func (v *Volume) TryAllocate(n int) ([]*metapb.Chunk, error) {
	in := &metapb.AllocateRequest{Client: v.ID, File: v.File, Epoch: v.Epoch}
	for i := range n {
		in.Indices = append(in.Indices, uint32(i))
	}
	r, err := v.c.Leader().Allocate(context.Background(), in)
	if err != nil {
		return nil, err
	}
	return r.Chunks, nil
}

// Drop drops a server from all chunks.
func (v *Volume) Drop(server uint32) (*metapb.DropReply, error) {
	return v.c.Leader().Drop(context.Background(), &metapb.DropRequest{Client: v.ID, File: v.File, Epoch: v.Epoch, Server: server, All: true})
}

// Create makes a file of 1 GiB with attributes replicas=norm:min.
func (c *Cluster) Create(path string, norm, least uint32) *metapb.FileInfo {
	c.T.Helper()
	f, err := c.Leader().Create(context.Background(), &metapb.CreateRequest{Path: path, Size: 1 << 30,
		Attributes: &metapb.Attributes{ReplicasNorm: norm, ReplicasMin: least}})
	if err != nil {
		c.T.Fatal(err)
	}
	return f
}

// Keys names chunks 0 to n-1 of a file.
func Keys(file uint64, n int) (keys []fsm.ChunkKey) {
	for i := range n {
		keys = append(keys, fsm.ChunkKey{File: file, Index: uint32(i)})
	}
	return keys
}

// Insync tells whether the chunks 0 to n-1 have exactly these servers in sync, and none syncing.
func (c *Cluster) Insync(file uint64, n int, servers ...uint32) bool {
	c.T.Helper()
	slices.Sort(servers)
	for _, k := range Keys(file, n) {
		if r := c.Chunk(k.File, k.Index); !slices.Equal(r.Insync, servers) || len(r.Syncing) > 0 {
			return false
		}
	}
	return true
}

// Within waits, in virtual time, until the condition holds; it fails the test when it does not in time.
func (c *Cluster) Within(limit time.Duration, what string, condition func() bool) {
	c.T.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(50 * time.Millisecond) {
		synctest.Wait()
		if condition() {
			return
		}
		if time.Now().After(end) {
			c.T.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// Never watches, in virtual time, that the condition does not come to hold.
func (c *Cluster) Never(during time.Duration, what string, condition func() bool) {
	c.T.Helper()
	for end := time.Now().Add(during); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		synctest.Wait()
		if condition() {
			c.T.Fatalf("within %v: %s", during, what)
		}
	}
}

// Config sets a parameter.
func (c *Cluster) Config(name, value string) {
	c.T.Helper()
	c.Do(&fsmpb.Command{Command: &fsmpb.Command_SetConfig{SetConfig: &fsmpb.SetConfig{Set: map[string]string{name: value}}}})
}
