package cs

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	identityName   = "identity"
	lockName       = "lock"
	storeName      = "store"
	identityFormat = 1
	identityMax    = 64 << 10
)

// Identity is who a chunk server is. It never changes.
type Identity struct {
	Cluster   string
	ClusterID [16]byte
	Server    uint32
	Host      string
}

// identityFile is Identity as it is stored. Part of the format.
type identityFile struct {
	Format    int    `json:"format"`
	Cluster   string `json:"cluster"`
	ClusterID string `json:"cluster_id"`
	Server    uint32 `json:"server"`
	Host      string `json:"host"`
	Sum       uint32 `json:"sum,omitempty"`
}

func (f identityFile) sum() uint32 {
	f.Sum = 0
	b, err := json.Marshal(f)
	if err != nil {
		panic(err) // plain fields always encode
	}
	return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
}

func encodeIdentity(id Identity) []byte {
	f := identityFile{Format: identityFormat, Cluster: id.Cluster, ClusterID: hex.EncodeToString(id.ClusterID[:]),
		Server: id.Server, Host: id.Host}
	f.Sum = f.sum()
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		panic(err) // plain fields always encode
	}
	return append(b, '\n')
}

func decodeIdentity(b []byte) (id Identity, err error) {
	var f identityFile
	if err := json.Unmarshal(b, &f); err != nil {
		return id, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	if f.Format != identityFormat {
		return id, fmt.Errorf("%w: format %d", ErrIdentity, f.Format)
	}
	if f.Sum != f.sum() {
		return id, fmt.Errorf("%w: it does not match its sum", ErrIdentity)
	}
	raw, err := hex.DecodeString(f.ClusterID)
	if err != nil || len(raw) != len(id.ClusterID) || f.Server == 0 {
		return id, fmt.Errorf("%w: bad numbers", ErrIdentity)
	}
	copy(id.ClusterID[:], raw)
	id.Cluster, id.Server, id.Host = f.Cluster, f.Server, f.Host
	return id, nil
}

// LoadIdentity reads the identity of the chunk server in dir.
func LoadIdentity(dir string) (Identity, error) {
	name := filepath.Join(dir, identityName)
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return Identity{}, fmt.Errorf("%s: %w", dir, ErrNoIdentity)
	}
	if err != nil {
		return Identity{}, err
	}
	if info.Size() > identityMax {
		return Identity{}, fmt.Errorf("%s: %w: %d bytes", name, ErrIdentity, info.Size())
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return Identity{}, err
	}
	id, err := decodeIdentity(b)
	if err != nil {
		return Identity{}, fmt.Errorf("%s: %w", name, err)
	}
	return id, nil
}

// saveIdentity writes the identity so that it is there whole, or not at all.
func saveIdentity(dir string, id Identity) error {
	temp := filepath.Join(dir, identityName+".new")
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(encodeIdentity(id))
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(temp, filepath.Join(dir, identityName)); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockDir takes the folder's lock; closing the file gives it back.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", dir, ErrLocked)
		}
		return nil, fmt.Errorf("lock of %s: %w", dir, err)
	}
	return f, nil
}
