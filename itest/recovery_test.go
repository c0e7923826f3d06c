package itest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"pstorage/itest/check"
	"pstorage/itest/cluster"
)

// The tests here do what docs/recovery.md says, with real processes. TestRunbookNamesWhatExists keeps the two together.

// runbook is a cluster with a volume of three copies in use, and what must be in it.
type runbook struct {
	*cluster.Cluster
	t     *testing.T
	ctx   context.Context
	model *check.Volume
}

func newRunbook(t *testing.T, o cluster.Options) *runbook {
	t.Helper()
	b := &runbook{Cluster: newCluster(t, o), t: t, ctx: newContext(t), model: check.New(16*mib, 5)}
	command(t, b.Cluster, "create", "v", "-s", "16M", "--chunk-size", "1M", "--replicas", "3:2")
	b.use(amount(600, 200))
	return b
}

// use writes to the volume, and makes sure that it can be read.
func (b *runbook) use(writes int) {
	b.t.Helper()
	client := connect(b.t, b.NBD("v"))
	defer client.Close()
	if err := b.model.Run(client, writes, nil); err != nil {
		b.t.Fatal(err)
	}
	if err := client.Flush(); err != nil {
		b.t.Fatal(err)
	}
	if err := b.model.Verify(client); err != nil {
		b.t.Fatal(err)
	}
}

// id is the number that stat shows of chunk server i.
func (b *runbook) id(i int) string {
	b.t.Helper()
	state, err := b.State(b.ctx)
	await(b.t, err)
	return itoa(int64(state.CS[i].ID))
}

// stat waits until stat says what is wanted, and returns what it shows.
func (b *runbook) stat(want string) string {
	b.t.Helper()
	for {
		out, err := b.Run(b.ctx, "stat")
		if err == nil && strings.Contains(out, want) {
			return out
		}
		select {
		case <-b.ctx.Done():
			b.t.Fatalf("stat never says %q: %v\n%s", want, err, out)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// lose ends a chunk server, and its disk with it.
func (b *runbook) lose(i int) {
	b.t.Helper()
	b.CS[i].Kill()
	await(b.t, os.RemoveAll(b.CSDir(i)))
}

func TestRunbookLostDisk(t *testing.T) {
	b := newRunbook(t, cluster.Options{})
	id := b.id(1)
	b.lose(1)
	b.use(200) // two copies are left, and MIN is two
	b.stat("inactive")
	if got := invoke(t, b.Dir, "-c", cluster.Name, "rm-cs", "-f", id); got.code != 5 || !strings.Contains(got.err+got.out, " 0 none at all") {
		t.Fatalf("unconfirmed: exit %d, %s%s", got.code, got.out, got.err)
	}
	command(t, b.Cluster, "rm-cs", "-f", id, "-y")
	await(t, b.AddCS(b.ctx))
	await(t, b.awaitWhole(b.ctx))
	b.use(100)
}

// awaitWhole waits until every chunk has all its copies again; servers that were dropped stay listed for a while.
func (b *runbook) awaitWhole(ctx context.Context) error {
	for {
		state, err := b.State(ctx)
		if err == nil && state.Health == "healthy" {
			return nil
		}
		select {
		case <-ctx.Done():
			out, _ := b.Run(context.Background(), "stat")
			return errors.Join(ctx.Err(), err, fmt.Errorf("the cluster does not become whole:\n%s", out))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func TestRunbookAllCopiesLost(t *testing.T) {
	b := newRunbook(t, cluster.Options{Servers: 4})
	command(t, b.Cluster, "create", "single", "-s", "64M", "--chunk-size", "1M", "--replicas", "1:1")
	single := connect(t, b.NBD("single"))
	for at := int64(0); at < 64*mib; at += mib { // so many that some are on each server
		await(t, single.Write(bytes.Repeat([]byte{7}, 4096), at))
	}
	_ = single.Close()
	id := b.id(0)
	b.lose(0)
	b.stat("failure")
	got := invoke(t, b.Dir, "-c", cluster.Name, "rm-cs", "-f", id)
	if got.code != 5 || !strings.Contains(got.err+got.out, "LOST") || strings.Contains(got.err+got.out, " 0 none at all") {
		t.Fatalf("unconfirmed: exit %d, %s%s", got.code, got.out, got.err)
	}
	command(t, b.Cluster, "rm-cs", "-f", id, "-y")
	b.use(100) // volumes with more copies miss nothing
	command(t, b.Cluster, "rm", "single", "--force")
	await(t, b.awaitWhole(b.ctx))
}

func TestRunbookLastCopyDamaged(t *testing.T) {
	b := &runbook{Cluster: newCluster(t, cluster.Options{}), t: t, ctx: newContext(t)}
	command(t, b.Cluster, "create", "single", "-s", "1M", "--chunk-size", "1M", "--replicas", "1:1")
	good := bytes.Repeat([]byte{7}, mib)
	client := connect(t, b.NBD("single"))
	await(t, errors.Join(client.Write(good, 0), client.Flush()))
	_ = client.Close()
	await(t, b.Stop())
	for i := range b.CS {
		if dump := invoke(t, b.Dir, "cs-dump", b.CSDir(i)); strings.Contains(dump.out, "in-sync") {
			damage(t, b.CSDir(i), good[:4096])
			if got := invoke(t, b.Dir, "cs-check", b.CSDir(i)); got.code != 6 {
				t.Errorf("check: exit %d, %s%s", got.code, got.out, got.err)
			}
		}
	}
	b.restart()
	client = connect(t, b.NBD("single"))
	defer client.Close()
	bad, back := int64(-1), make([]byte, 4096)
	for at := int64(0); at < mib; at += 4096 {
		if err := client.Read(back, at); err != nil {
			bad = at
		} else if !bytes.Equal(back, good[:4096]) {
			t.Fatalf("wrong data at %d", at)
		}
	}
	if bad < 0 {
		t.Fatal("the damaged block is read")
	}
	await(t, client.Write(good[:4096], bad)) // from a backup
	await(t, client.Read(back, bad))
}

// restart starts everything that was stopped.
func (b *runbook) restart() {
	b.t.Helper()
	for i := range b.MDS {
		await(b.t, b.StartMDS(b.ctx, i))
	}
	for i := range b.CS {
		await(b.t, b.StartCS(b.ctx, i))
	}
	await(b.t, b.StartTargets(b.ctx))
}

func TestRunbookColdStartInAnyOrder(t *testing.T) {
	b := newRunbook(t, cluster.Options{MDS: 3})
	starts := map[string]func() error{
		"mds1": func() error { return b.StartMDS(b.ctx, 0) }, "mds2": func() error { return b.StartMDS(b.ctx, 1) }, "mds3": func() error { return b.StartMDS(b.ctx, 2) },
		"cs1": func() error { return b.StartCS(b.ctx, 0) }, "cs2": func() error { return b.StartCS(b.ctx, 1) }, "cs3": func() error { return b.StartCS(b.ctx, 2) },
		"targets": func() error { return b.StartTargets(b.ctx) },
	}
	for _, order := range []string{"targets cs3 cs1 cs2 mds3 mds1 mds2", "cs2 mds1 targets mds3 cs1 mds2 cs3"} {
		for _, p := range b.Processes() {
			p.Kill()
		}
		began := make(chan error)
		names := strings.Fields(order)
		for _, name := range names {
			go func() { began <- starts[name]() }() // some are ready only when others are there
			time.Sleep(200 * time.Millisecond)
		}
		for range names {
			await(t, <-began)
		}
		await(t, b.awaitWhole(b.ctx))
		b.use(100)
	}
}

func TestRunbookSplitNetwork(t *testing.T) {
	b := newRunbook(t, cluster.Options{MDS: 3})
	for _, i := range []int{0, 1} { // the side with a minority is left
		await(t, b.MDS[i].Pause())
	}
	got := invoke(t, b.Dir, "-c", cluster.Name, "--timeout", "3s", "stat")
	for _, i := range []int{0, 1} {
		await(t, b.MDS[i].Signal(syscall.SIGCONT))
	}
	if got.code != 4 {
		t.Errorf("stat without a majority: exit %d, %s%s", got.code, got.out, got.err)
	}
	await(t, b.AwaitMDS(b.ctx, 3))
	await(t, b.awaitWhole(b.ctx))
	b.use(100)
}

func TestRunbookFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting small disks needs root")
	}
	dirs := smallDisks(t, 4, 128)
	b := newRunbook(t, cluster.Options{Servers: 4, CSDirs: dirs})
	b.useWithout(dirs[0], 400) // copies go to the others
	b.use(100)
}

// useWithout uses the volume while others fill the disk of a chunk server's folder.
func (b *runbook) useWithout(dir string, writes int) {
	b.t.Helper()
	ballast := filepath.Join(filepath.Dir(dir), "ballast")
	if err := os.WriteFile(ballast, make([]byte, 200*mib), 0o600); !errors.Is(err, syscall.ENOSPC) {
		b.t.Fatalf("the disk is not full: %v", err)
	}
	b.use(writes)
	await(b.t, os.Remove(ballast))
	await(b.t, b.awaitWhole(b.ctx))
}

// Each disk in turn is filled by others, and has room again.
func TestDisksFillInTurn(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting small disks needs root")
	}
	dirs := smallDisks(t, 4, 128)
	b := newRunbook(t, cluster.Options{Servers: 4, CSDirs: dirs})
	for _, dir := range dirs {
		b.useWithout(dir, 150)
	}
}

func TestRunbookFullCluster(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting small disks needs root")
	}
	b := newRunbook(t, cluster.Options{CSDirs: smallDisks(t, 3, 128)})
	command(t, b.Cluster, "create", "filler", "-s", "1G", "--chunk-size", "1M")
	filler := connect(t, b.NBD("filler"))
	data, err := bytes.Repeat([]byte{9}, mib), error(nil)
	for at := int64(0); at < 1<<30 && err == nil; at += mib {
		err = filler.Write(data, at)
	}
	if err == nil || !isNoSpace(err) {
		t.Fatalf("the cluster was never full: %v", err)
	}
	client := connect(t, b.NBD("v"))
	if err := b.model.Verify(client); err != nil {
		t.Fatal(err)
	}
	_, _ = client.Close(), filler.Close()
	removeWhenUnused(t, b.Cluster, "filler")
	command(t, b.Cluster, "create", "again", "-s", "16M", "--chunk-size", "1M")
	writeUntilRoom(t, b.NBD("again"), data)
	b.use(100)
}

// A runbook that names a command, an option or a test that does not exist is worse than none.
func TestRunbookNamesWhatExists(t *testing.T) {
	text, err := os.ReadFile("../docs/recovery.md")
	await(t, err)
	sources, err := filepath.Glob("*_test.go")
	await(t, err)
	judged, err := filepath.Glob("../meta/*/*_test.go") // what needs servers that answer as they are told
	await(t, err)
	sources = append(sources, judged...)
	var tests strings.Builder
	for _, name := range sources {
		source, err := os.ReadFile(name)
		await(t, err)
		tests.Write(source)
	}
	sections := strings.Split(string(text), "\n## ")[1:]
	for _, section := range sections {
		title, _, _ := strings.Cut(section, "\n")
		named := regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(section, -1)
		if len(named) == 0 {
			t.Errorf("%s: no test does it", title)
		}
		for _, name := range named {
			if !strings.Contains(tests.String(), "func "+name+"(") {
				t.Errorf("%s: there is no %s", title, name)
			}
		}
	}
	commands := regexp.MustCompile(`(?m)^    pstorage(?: -c \w+)? ([a-z-]+)([^#\n|]*)`).FindAllStringSubmatch(string(text), -1)
	if len(commands) < 10 {
		t.Errorf("only %d commands were found", len(commands))
	}
	root := t.TempDir()
	for _, c := range commands {
		help := invoke(t, root, c[1], "--help")
		if help.code != 0 || !strings.Contains(help.out, "pstorage "+c[1]) {
			t.Errorf("there is no command %s", c[1])
		}
		for _, option := range regexp.MustCompile(` (--?[a-z-]+)`).FindAllStringSubmatch(c[2], -1) {
			if !strings.Contains(help.out, option[1]) {
				t.Errorf("%s has no option %s", c[1], option[1])
			}
		}
	}
}
