package meta

import (
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"pstorage/meta/discovery"
)

// Files in a metadata server's folder; part of the format.
const (
	identityFile = "mds.json"  // identity, below
	raftFile     = "raft.db"   // package raftstore
	machineFile  = "fsm.db"    // package fsm; made anew at each start
	snapshotDir  = "snapshots" // of Raft
	lockFile     = "lock"
	keyFile      = "secret.key" // what accounts of iSCSI targets are sealed with: 64 hexadecimal digits; nowhere else
	peersFile    = "peers.json" // client addresses of the other metadata servers when last heard of: a JSON list of strings
	removedFile  = "removed"    // there once the server has been told that it was removed from the cluster
)

const (
	// identityFormat is the version of identityFile. Part of the format.
	identityFormat = 1
	// passwordRounds is the work that one guess of the password costs.
	passwordRounds = 200_000
	saltSize       = 16
	hashSize       = 32
)

// identity is who a metadata server is: a JSON file, written once.
type identity struct {
	Format         int       `json:"format"`
	Cluster        string    `json:"cluster"`
	ClusterID      uuid.UUID `json:"cluster_id"`
	Node           uint64    `json:"node"`    // its number among the cluster's metadata servers
	Address        string    `json:"address"` // for other metadata servers
	PasswordSalt   []byte    `json:"password_salt,omitempty"`
	PasswordHash   []byte    `json:"password_hash,omitempty"` // PBKDF2, SHA-256
	PasswordRounds uint32    `json:"password_rounds,omitempty"`
}

// CreateOptions describe a new cluster.
type CreateOptions struct {
	Cluster  string // its name
	Password string // nodes join with it
	Address  string // IP:PORT of this first metadata server for the others
}

// Create makes the folder of a new cluster's first metadata server. The folder must be empty or not there.
func Create(dir string, o CreateOptions) error {
	if err := discovery.CheckName(o.Cluster); err != nil {
		return err
	}
	if err := emptyDir(dir); err != nil {
		return err
	}
	id, err := newIdentity(o)
	if err != nil {
		return err
	}
	if err := bootstrap(dir, id); err != nil {
		return err
	}
	if _, err := makeKey(dir); err != nil {
		return err
	}
	return writeIdentity(dir, id)
}

func newIdentity(o CreateOptions) (*identity, error) {
	id := &identity{Format: identityFormat, Cluster: o.Cluster, ClusterID: uuid.New(), Node: 1, Address: o.Address}
	if o.Password == "" {
		return id, nil
	}
	id.PasswordSalt, id.PasswordRounds = make([]byte, saltSize), passwordRounds
	if _, err := rand.Read(id.PasswordSalt); err != nil {
		return nil, err
	}
	hash, err := pbkdf2.Key(sha256.New, o.Password, id.PasswordSalt, passwordRounds, hashSize)
	id.PasswordHash = hash
	return id, err
}

// writeIdentity makes the file appear whole and durable, or not at all. It comes last: a folder without it holds no metadata server.
func writeIdentity(dir string, id *identity) error {
	data, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	return writeWhole(dir, identityFile, data)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func readIdentity(dir string) (*identity, error) {
	data, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", dir, ErrNoServer)
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	return parseIdentity(data)
}

func parseIdentity(data []byte) (*identity, error) {
	id := &identity{}
	if err := json.Unmarshal(data, id); err != nil {
		return nil, fmt.Errorf("%s: %w: %v", identityFile, ErrIdentity, err)
	}
	if id.Format != identityFormat || id.Node == 0 || discovery.CheckName(id.Cluster) != nil {
		return nil, fmt.Errorf("%s: format %d, node %d, cluster %q: %w", identityFile, id.Format, id.Node, id.Cluster, ErrIdentity)
	}
	return id, nil
}
