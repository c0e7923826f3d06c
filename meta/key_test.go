package meta

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pstorage/meta/leader"
)

// keyOf is the key in a server's folder, nil: it has none.
func (c *servers) keyOf(i int) []byte {
	c.t.Helper()
	key, err := readKey(c.dirs[i])
	if err != nil {
		c.t.Fatal(err)
	}
	return key
}

func (c *servers) lose(i int) {
	c.t.Helper()
	if err := os.Remove(filepath.Join(c.dirs[i], keyFile)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *servers) awaitKey(i int, want []byte) {
	c.t.Helper()
	await(c.t, "the key has come", func() bool { return bytes.Equal(c.keyOf(i), want) })
}

func TestJoiningServersGetTheKey(t *testing.T) {
	c := found(t, 2)
	key := c.keyOf(0)
	if len(key) != keySize || !bytes.Equal(c.keyOf(1), key) {
		t.Fatal("the first has a key of", len(key), "bytes, and the second not the same")
	}
	info, err := os.Stat(filepath.Join(c.dirs[1], keyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	for i := range c.dirs {
		if files := whoHas(t, c.dirs[i], key); len(files) != 0 {
			t.Errorf("the key is in %v", files)
		}
	}
}

// whoHas lists the files of a folder that have the bytes in them.
func whoHas(t *testing.T, dir string, what []byte) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if bytes.Contains(data, what) {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// A cluster from before there were keys gets one from its first leader, whoever has lost it from those that have it, the leader too.
func TestTheKeyComesToWhoLacksIt(t *testing.T) {
	c := found(t, 2)
	key := c.keyOf(0)
	for _, lost := range []int{1, 0} {
		c.stop(0)
		c.stop(1)
		c.lose(lost)
		c.start(0)
		c.start(1)
		c.leader()
		c.awaitKey(lost, key)
	}
}

func TestAClusterWithoutAKeyGetsOne(t *testing.T) {
	t.Parallel()
	dir := create(t)
	if err := os.Remove(filepath.Join(dir, keyFile)); err != nil {
		t.Fatal(err)
	}
	s := start(t, Config{Dir: dir})
	leads(t, s)
	key, err := readKey(dir)
	if err != nil || len(key) != keySize {
		t.Fatalf("%d bytes, %v", len(key), err)
	}
	if have, err := s.key.get(s.keyMark()); err != nil || !bytes.Equal(have, key) {
		t.Errorf("what the leader goes by is another: %v", err)
	}
}

// A key that is not the one the cluster has agreed on is of no use, and a wrong one is not taken.
func TestOnlyTheKeyOfTheMarkIsUsed(t *testing.T) {
	dir := t.TempDir()
	right, wrong := bytes.Repeat([]byte{1}, keySize), bytes.Repeat([]byte{2}, keySize)
	k := &clusterKey{dir: dir}
	if err := k.take(wrong, keyMark(right)); err != nil || k.key != nil {
		t.Fatalf("the wrong key was taken (%v)", err)
	}
	if _, err := k.get(keyMark(right)); !errors.Is(err, leader.ErrNoKey) {
		t.Errorf("without a key: %v", err)
	}
	if _, err := k.get(nil); !errors.Is(err, leader.ErrNoKey) {
		t.Errorf("without a key and a mark: %v", err)
	}
	k.key = wrong
	if _, err := k.get(keyMark(right)); !errors.Is(err, leader.ErrNoKey) {
		t.Errorf("with the wrong key: %v", err)
	}
	if err := k.take(right, keyMark(right)); err != nil {
		t.Fatal(err)
	}
	if have, err := k.get(keyMark(right)); err != nil || !bytes.Equal(have, right) {
		t.Errorf("with the right key: %v", err)
	}
	if kept, err := readKey(dir); err != nil || !bytes.Equal(kept, right) {
		t.Errorf("the right key is not kept: %v", err)
	}
}

// What cannot be read may be the only copy, and be read again: it stays.
func TestAKeyThatCannotBeReadIsNotMadeAnew(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, keyFile)
	if err := os.WriteFile(file, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := loadKey(dir, slog.New(slog.DiscardHandler))
	if mark, err := k.own(); !errors.Is(err, ErrKey) || strings.Contains(err.Error(), "torn") {
		t.Errorf("%x, %v; want ErrKey", mark, err)
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "torn" {
		t.Errorf("%q, %v", text, err)
	}
	right := bytes.Repeat([]byte{1}, keySize)
	if err := k.take(right, keyMark(right)); err != nil {
		t.Fatal(err)
	}
	if mark, err := k.own(); err != nil || !bytes.Equal(mark, keyMark(right)) {
		t.Errorf("%x, %v", mark, err)
	}
}

func FuzzKey(f *testing.F) {
	f.Add([]byte("00"))
	f.Add(bytes.Repeat([]byte("0f"), keySize))
	f.Fuzz(func(t *testing.T, text []byte) {
		if key, err := parseKey(text); err == nil && len(key) != keySize {
			t.Errorf("%q is a key of %d bytes", text, len(key))
		}
	})
}
