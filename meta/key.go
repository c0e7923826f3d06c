package meta

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/leader"
	"pstorage/meta/metapb"
)

// The key of a cluster is what the secrets of accounts are sealed with (package targets). It is made with the cluster, or by the first leader of one
// that was made before there were keys, and lives in a file in the folder of every metadata server: not in the log, not in snapshots, not in what tools
// print. In the state there is only its mark, by which everybody tells the right key; the first one that was committed is right.
//
// A server gets the key when it joins, or from the leader that it presents itself to; a leader that lacks it gets it from a server that has it. It
// goes over the same connections as everything else: as long as nodes do not authenticate, who reaches the port for clients could ask for it (and
// for the secrets themselves, as a node that serves targets does), which is why only loopback is served without insecure-network.

// keySize is that of AES-256.
const keySize = 32

// keyMark is by what a key is known. Part of the format.
func keyMark(key []byte) []byte {
	sum := sha256.Sum256(append([]byte("pstorage key "), key...))
	return sum[:fsm.KeyMarkSize]
}

// makeKey makes the key of a new cluster.
func makeKey(dir string) ([]byte, error) {
	key := make([]byte, keySize)
	if _, err := rand.Read(key); err != nil {
		return nil, err
	}
	return key, writeKey(dir, key)
}

func writeKey(dir string, key []byte) error {
	if len(key) != keySize {
		return fmt.Errorf("a key of %d bytes: %w", len(key), ErrKey)
	}
	return writeWhole(dir, keyFile, []byte(hex.EncodeToString(key)))
}

// readKey returns the key in a folder, nil if there is none.
func readKey(dir string) ([]byte, error) {
	text, err := os.ReadFile(filepath.Join(dir, keyFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseKey(text)
}

func parseKey(text []byte) ([]byte, error) {
	key, err := hex.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != keySize {
		return nil, fmt.Errorf("%s: %w", keyFile, ErrKey) // not what is wrong: that could show some of it
	}
	return key, nil
}

// clusterKey is what a server that runs knows of the key.
type clusterKey struct {
	dir string

	mu         sync.Mutex
	key        []byte
	unreadable error // what is in the folder: it is not made anew
	wanted     bool  // the leader lacks it
}

// loadKey reads the folder's key. One that cannot be read, another server has to hand over.
func loadKey(dir string, log *slog.Logger) *clusterKey {
	key, err := readKey(dir)
	if err != nil {
		log.Error("the key of the cluster cannot be read; another metadata server has to hand it over", "folder", dir, "error", err)
	}
	return &clusterKey{dir: dir, key: key, unreadable: err}
}

// get returns the key if it is the one of the mark.
func (k *clusterKey) get(mark []byte) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.key == nil || !bytes.Equal(keyMark(k.key), mark) {
		return nil, leader.ErrNoKey
	}
	return slices.Clone(k.key), nil
}

// own returns the mark of the key that the folder has, which is made if there is none.
func (k *clusterKey) own() (mark []byte, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.unreadable != nil {
		return nil, k.unreadable
	}
	if k.key == nil {
		if k.key, err = makeKey(k.dir); err != nil {
			k.key = nil
			return nil, err
		}
	}
	return keyMark(k.key), nil
}

// take keeps a key that somebody has handed over, if it is the right one and is not there yet.
func (k *clusterKey) take(key, mark []byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(key) != keySize || !bytes.Equal(keyMark(key), mark) || bytes.Equal(key, k.key) {
		return nil
	}
	if err := writeKey(k.dir, key); err != nil {
		return err
	}
	k.key, k.unreadable = slices.Clone(key), nil
	return nil
}

// offer tells the leader which key this server has, and the key itself if it wants that.
func (k *clusterKey) offer(in *metapb.PresentMdsRequest) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.key == nil {
		return
	}
	if in.KeyMark = keyMark(k.key); k.wanted {
		in.Key = slices.Clone(k.key)
	}
}

// heed takes the leader's answer.
func (k *clusterKey) heed(reply *metapb.PresentMdsReply, mark []byte) error {
	k.mu.Lock()
	k.wanted = reply.LacksKey
	k.mu.Unlock()
	return k.take(reply.Key, mark)
}

// keyMark is the mark of the cluster's key, as far as this server's state goes.
func (s *Server) keyMark() (mark []byte) {
	_ = s.View(func(v *fsm.View) error { mark = v.KeyMark(); return nil })
	return mark
}

// introduceKey commits the mark of the key, once. A leader without a key, and without a disk to keep one on, leads all the same.
func (t *term) introduceKey(ctx context.Context) error {
	if t.keyMark() != nil {
		return nil
	}
	mark, err := t.key.own()
	if err != nil {
		t.log.Error("no key for the cluster could be made", "error", err)
		return nil
	}
	_, err = t.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_SetKey{SetKey: &fsmpb.SetKey{Mark: mark}}})
	return err
}

// exchangeKey hands the key to a server that lacks it, or takes it from one that has it.
func (t *term) exchangeKey(in *metapb.PresentMdsRequest, out *metapb.PresentMdsReply) {
	mark := t.keyMark()
	if err := t.key.take(in.Key, mark); err != nil {
		t.log.Warn("the cluster's key cannot be kept", "error", err)
	}
	key, err := t.Key()
	has := bytes.Equal(in.KeyMark, mark)
	switch {
	case err == nil && !has:
		out.Key = key
	case err != nil && has:
		out.LacksKey = true
	}
}
