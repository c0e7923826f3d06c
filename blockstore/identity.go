package blockstore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
)

const (
	identityFile = "client"      // "UUID INCARNATION\n"
	identityLock = "client.lock" // flock'ed while the identity is in use
)

// Identity names a client: ID survives its restarts, Incarnation rises with each. Whoever has it holds a lock, so that two
// processes never share one: a restarted daemon may take back its own leases at once.
type Identity struct {
	ID          [16]byte
	Incarnation uint64
	lock        *os.File
}

// LoadIdentity takes the identity kept in dir, making one at the first start, and locks it.
func LoadIdentity(dir string) (Identity, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Identity{}, fmt.Errorf("client identity: %w", err)
	}
	lock, err := lockFile(filepath.Join(dir, identityLock))
	if err != nil {
		return Identity{}, fmt.Errorf("client identity in %s: %w", dir, err)
	}
	id, err := nextIncarnation(dir)
	if err != nil {
		lock.Close()
		return Identity{}, fmt.Errorf("client identity in %s: %w", dir, err)
	}
	id.lock = lock
	return id, nil
}

// Release gives up the lock.
func (id *Identity) Release() error {
	if id.lock == nil {
		return nil
	}
	lock := id.lock
	id.lock = nil
	return lock.Close()
}

func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, ErrIdentityInUse
		}
		return nil, err
	}
	return f, nil
}

// nextIncarnation reads the identity, raises the incarnation and writes it back before it is used.
func nextIncarnation(dir string) (Identity, error) {
	path := filepath.Join(dir, identityFile)
	text, err := os.ReadFile(path)
	id := Identity{ID: uuid.New()}
	if err == nil {
		id, err = parseIdentity(string(text))
	} else if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	if err != nil {
		return Identity{}, err
	}
	id.Incarnation++
	return id, replaceFile(path, fmt.Sprintf("%s %d\n", uuid.UUID(id.ID), id.Incarnation))
}

func parseIdentity(text string) (Identity, error) {
	var name string
	var id Identity
	if _, err := fmt.Sscanf(strings.TrimSpace(text), "%s %d", &name, &id.Incarnation); err != nil {
		return Identity{}, fmt.Errorf("%w: %q", ErrIdentity, text)
	}
	u, err := uuid.Parse(name)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %q", ErrIdentity, text)
	}
	id.ID = u
	return id, nil
}

// replaceFile writes a file so that a crash leaves the old or the new one.
func replaceFile(path, text string) error {
	f, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
