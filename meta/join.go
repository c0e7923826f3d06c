package meta

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"pstorage/meta/client"
	"pstorage/meta/discovery"
	"pstorage/meta/fsm"
	"pstorage/meta/metapb"
	"pstorage/meta/raftstore"
)

// JoinOptions describe a metadata server that joins a cluster.
type JoinOptions struct {
	Cluster  string
	Password string
	Address  string          // IP:PORT of the new server for the others
	MDS      []string        // client addresses of metadata servers that the cluster has
	Reach    []client.Option // how they are reached (tests)
}

// nonceSize is the size of what a join is known by.
const nonceSize = 16

// Join makes the folder of a further metadata server of a cluster, which must run, and returns the server's number. The folder must be
// empty or not there. The server becomes part of the cluster when it is started.
func Join(ctx context.Context, dir string, o JoinOptions) (number uint64, err error) {
	if err := discovery.CheckName(o.Cluster); err != nil {
		return 0, err
	}
	clientAddress, err := nextPort(o.Address)
	if err != nil {
		return 0, err
	}
	if err := emptyDir(dir); err != nil {
		return 0, err
	}
	c, err := client.New(o.MDS, o.Reach...)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	in := &metapb.JoinMdsRequest{Cluster: o.Cluster, Password: o.Password, Address: o.Address, ClientAddress: clientAddress, Version: Version, Level: fsm.Level,
		Nonce: make([]byte, nonceSize)}
	if _, err := rand.Read(in.Nonce); err != nil {
		return 0, err
	}
	reply, err := c.JoinMds(ctx, in)
	if err != nil {
		return 0, err
	}
	return reply.Id, makeJoined(dir, o, reply)
}

// makeJoined fills the folder: an empty log, and last the identity.
func makeJoined(dir string, o JoinOptions, reply *metapb.JoinMdsReply) error {
	cluster, err := uuid.FromBytes(reply.ClusterId)
	if err != nil || reply.Id == 0 {
		return fmt.Errorf("the cluster answers with number %d and cluster %x: %w", reply.Id, reply.ClusterId, ErrIdentity)
	}
	store, err := raftstore.Open(filepath.Join(dir, raftFile))
	if err != nil {
		return err
	}
	if err := store.Close(); err != nil {
		return err
	}
	if err := writePeers(dir, reply.ClientAddresses); err != nil {
		return err
	}
	if len(reply.Key) > 0 { // else the server is handed it later (presence.go)
		if err := writeKey(dir, reply.Key); err != nil {
			return err
		}
	}
	return writeIdentity(dir, &identity{Format: identityFormat, Cluster: o.Cluster, ClusterID: cluster, Node: reply.Id, Address: o.Address})
}

// emptyDir makes the folder if it is not there, and refuses one that holds something.
func emptyDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make metadata server: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("make metadata server: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("make metadata server in %s: %w", dir, ErrNotEmpty)
	}
	return nil
}

// writeWhole makes a file appear whole and durable, or not at all.
func writeWhole(dir, name string, data []byte) error {
	temporary := filepath.Join(dir, name+".new")
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	_, err = f.Write(append(data, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(temporary, filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return syncDir(dir)
}
