package faults

import (
	"bytes"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"pstorage/itest/cluster"
	"pstorage/itest/nbd"
	"pstorage/itest/scenario"
)

const (
	sleeperBytes = 16 << 20
	sleeperDepth = 64
)

// connectSoon connects as soon as the volume is to be had: until a lease is over nobody else gets it.
func connectSoon(t *testing.T, uri string) *nbd.Client {
	t.Helper()
	var client *nbd.Client
	var err error
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if client, err = nbd.Connect(uri); err == nil {
			return client
		}
	}
	t.Fatal(err)
	return nil
}

// fill writes one byte's value everywhere.
func fill(t *testing.T, client *nbd.Client, value byte) {
	t.Helper()
	data := bytes.Repeat([]byte{value}, 1<<20)
	for at := int64(0); at < sleeperBytes; at += int64(len(data)) {
		if err := client.Write(data, at); err != nil {
			t.Fatal(err)
		}
	}
}

// holds fails unless that value is everywhere.
func holds(t *testing.T, client *nbd.Client, value byte) {
	t.Helper()
	got, want := make([]byte, 1<<20), bytes.Repeat([]byte{value}, 1<<20)
	for at := int64(0); at < sleeperBytes; at += int64(len(got)) {
		if err := client.Read(got, at); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("at %d: something else than %#x is there", at, value)
		}
	}
}

// keepWriting sends writes that nobody waits for, all over the volume; it returns the outcomes.
func keepWriting(client *nbd.Client, value byte) <-chan *nbd.Op {
	outcomes := make(chan *nbd.Op, sleeperDepth)
	data := bytes.Repeat([]byte{value}, 64<<10)
	go func() { // more than the socket holds
		for i := range int64(sleeperDepth) {
			op := &nbd.Op{Command: nbd.CmdWrite, Offset: i * sleeperBytes / sleeperDepth, Length: uint32(len(data)), Data: data}
			client.Submit(op, func(op *nbd.Op) { outcomes <- op })
		}
	}()
	return outcomes
}

// TestAFrontEndThatSleptThroughItsLeaseWritesNothing stops a target daemon, gives it writes to find when it wakes up, and lets another
// one write meanwhile.
func TestAFrontEndThatSleptThroughItsLeaseWritesNothing(t *testing.T) {
	lab, ctx := newLab(t, cluster.Options{Servers: 3})
	if _, err := lab.Run(ctx, "create", "v", "-s", "64M", "--chunk-size", "1M"); err != nil {
		t.Fatal(err)
	}
	second, err := lab.Daemon(ctx, Second, "targetd", "-r", filepath.Join(lab.Dir, "second"), "--nbd", "unix:"+filepath.Join(lab.Dir, "nbd2"), "--iscsi", "")
	if err != nil {
		t.Fatal(err)
	}
	defer second.Kill()
	sleeper, err := nbd.Connect(lab.NBD("v"))
	if err != nil {
		t.Fatal(err)
	}
	defer sleeper.Close()
	fill(t, sleeper, 1)
	if err := lab.Targets.Pause(); err != nil {
		t.Fatal(err)
	}
	late := keepWriting(sleeper, 0xdd)
	awake := connectSoon(t, cluster.NBDOf(second, "v"))
	defer awake.Close()
	holds(t, awake, 1)
	fill(t, awake, 2)
	if err := lab.Targets.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for range sleeperDepth {
		if op := <-late; op.Err == nil {
			t.Errorf("a write at %d was acknowledged by a front end that holds no lease", op.Offset)
		}
	}
	holds(t, awake, 2)
	if err := awake.Flush(); err != nil {
		t.Fatal(err)
	}
	awake.Close()
	if _, err := second.Stop(); err != nil {
		t.Fatal(err)
	}
	found, err := scenario.StopIdentical(ctx, lab.Cluster, 3)
	if err != nil {
		t.Fatal(err)
	}
	if found.Layers != sleeperBytes>>20 {
		t.Errorf("%s: want the chunks written", fmt.Sprint(found))
	}
}
