package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"time"

	"pstorage/cli/size"
	"pstorage/itest/cluster"
	"pstorage/itest/scenario"
)

// longestStall is what a request may take when a chunk server dies.
const longestStall = 2 * time.Second

// up starts a cluster in one process with a volume v.
func (j *judge) up(ctx context.Context, bytes int64, args ...string) (*cluster.Up, error) {
	args = append([]string{"--volume", "v=" + strconv.FormatInt(bytes, 10)}, args...)
	return cluster.StartUp(ctx, j.binary, filepath.Join(j.dir, "data"), args...)
}

// stopUp ends it, and says so if it did not end in time.
func stopUp(u *cluster.Up, err error) error {
	took, stopErr := u.Stop()
	if stopErr == nil && took > 5*time.Second {
		stopErr = fmt.Errorf("SIGTERM took %v", took)
	}
	return errors.Join(err, stopErr)
}

func (j *judge) copy(ctx context.Context) (string, error) {
	u, err := j.up(ctx, j.copied)
	if err != nil {
		return "", err
	}
	err = scenario.Copy(ctx, u.NBD("v"), u.ISCSI("v"), j.dir, j.copied)
	return size.Format(uint64(j.copied)) + " in and out over NBD, compared by qemu-img, and the same through iSCSI", stopUp(u, err)
}

// processes starts a cluster of processes with a volume v.
func (j *judge) processes(ctx context.Context, bytes int64) (*cluster.Cluster, error) {
	c, err := cluster.New(ctx, j.binary, j.dir, cluster.Options{})
	if err != nil {
		return nil, err
	}
	if _, err := c.Run(ctx, "create", "v", "-s", strconv.FormatInt(bytes, 10)); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func (j *judge) fio(ctx context.Context) (string, error) {
	c, err := j.processes(ctx, 2*j.bytes)
	if err != nil {
		return "", err
	}
	r, err := scenario.FioVerify(ctx, c.NBD("v"), j.dir, j.bytes)
	return describe(r), errors.Join(err, c.Stop())
}

func describe(r scenario.FioResult) string {
	return fmt.Sprintf("%s written, %s read, %d trims, no error, longest wait %v", size.Format(uint64(r.Written)), size.Format(uint64(r.Read)), r.Trims, r.Longest.Round(time.Millisecond))
}

// fioKill kills a chunk server in the middle.
func (j *judge) fioKill(ctx context.Context) (string, error) {
	c, err := j.processes(ctx, 2*j.bytes)
	if err != nil {
		return "", err
	}
	timer := time.AfterFunc(5*time.Second, c.CS[1].Kill)
	defer timer.Stop()
	r, err := scenario.FioVerify(ctx, c.NBD("v"), j.dir, j.bytes)
	switch {
	case err != nil:
	case !c.CS[1].Ended():
		err = errors.New("fio was done before the chunk server was killed: give it more to do")
	case r.Longest > longestStall:
		err = fmt.Errorf("a request took %v, over %v", r.Longest, longestStall)
	}
	return describe(r) + ", one of three chunk servers killed", errors.Join(err, c.Stop())
}

func (j *judge) crash(ctx context.Context) (string, error) {
	u, err := j.up(ctx, 2*scenario.CrashBytes, "--chunk-size", "4M")
	if err != nil {
		return "", err
	}
	if err := scenario.CrashUp(ctx, u, "v", j.crashes, j.seed, func(line string) { fmt.Println("      " + line) }); err != nil {
		if !u.Ended() {
			u.Kill()
		}
		return "", err
	}
	return fmt.Sprintf("killed %d times during writes, every acknowledged write was there", j.crashes), stopUp(u, nil)
}
