package scenario

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"pstorage/itest/check"
	"pstorage/itest/cluster"
	"pstorage/itest/nbd"
)

const (
	// powerBytes is how much of the volume is worked on.
	powerBytes = 32 << 20
	powerDisk  = 4 << 30
	// powerNBD is the port in the guest.
	powerNBD = 10809
	// powerServers is how many chunk servers guest-up.sh has.
	powerServers = 3
)

// PowerCut runs a whole cluster in a guest and cuts its power again and again while it is written to: all replicas at once. After
// each, everything flushed must be there. In the end the cluster is run here, on the guest's disk, until it is whole, and all replicas are
// compared. lab is the folder of the guest's scripts.
func PowerCut(ctx context.Context, binary, lab, dir string, rounds int, seed uint64, report func(string)) (found Compared, err error) {
	forward, address, err := cluster.Forward(powerNBD)
	if err != nil {
		return found, err
	}
	guest, err := cluster.NewGuest(lab, filepath.Join(dir, "guest"), "guest-up.sh", powerDisk, append(forward, "-f", binary)...)
	if err != nil {
		return found, err
	}
	model := check.New(powerBytes, seed)
	model.Cuts, model.MaxSize = true, 64<<10
	random := rand.New(rand.NewPCG(seed, 5))
	for round := range rounds {
		pause := time.Duration(1000+random.IntN(5000)) * time.Millisecond
		if err := cutOnce(ctx, guest, "nbd://"+address+"/v", model, pause, report); err != nil {
			return found, fmt.Errorf("round %d, cut after %v: %w", round+1, pause, err)
		}
		report(fmt.Sprintf("round %d: power cut after %v, %d writes (%d MiB) so far, %d sectors not flushed", round+1, pause, model.Writes, model.Bytes>>20, model.Unflushed()))
	}
	return afterCuts(ctx, binary, dir, guest.Disk, model)
}

// cutOnce boots the guest, verifies what is there, writes for a while, and cuts the power.
func cutOnce(ctx context.Context, guest *cluster.Guest, uri string, model *check.Volume, pause time.Duration, report func(string)) error {
	if err := guest.Boot(ctx); err != nil {
		return err
	}
	defer guest.Kill()
	client, err := nbd.Connect(uri)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := model.VerifyCut(client); err != nil {
		return fmt.Errorf("after the last cut: %w", err)
	}
	cut := make(chan struct{})
	time.AfterFunc(pause, func() { guest.Kill(); close(cut) })
	err = model.Run(client, 1<<30, ctx.Done())
	<-cut
	if !errors.Is(err, nbd.ErrBroken) {
		return fmt.Errorf("at the cut: %w", err)
	}
	return ctx.Err()
}

// afterCuts mounts the guest's disk here and runs the cluster on it until it is whole.
func afterCuts(ctx context.Context, binary, dir, disk string, model *check.Volume) (found Compared, err error) {
	mounted := filepath.Join(dir, "mounted")
	if err := os.Mkdir(mounted, 0o755); err != nil {
		return found, err
	}
	if _, err := run(ctx, "mount", "-o", "loop", disk, mounted); err != nil {
		return found, err
	}
	defer func() { err = errors.Join(err, exec.Command("umount", mounted).Run()) }()
	u, err := cluster.StartUp(ctx, binary, filepath.Join(mounted, "cluster"))
	if err != nil {
		return found, err
	}
	err = errors.Join(lastLook(ctx, u, model), u.WaitWhole(ctx, wholeTime))
	if _, stopErr := u.Stop(); err != nil || stopErr != nil {
		return found, errors.Join(err, stopErr)
	}
	dirs := make([]string, powerServers)
	for i := range dirs {
		dirs[i] = filepath.Join(u.Dir, fmt.Sprintf("cs%d", i+1))
	}
	return Identical(ctx, binary, dirs, powerServers)
}

func lastLook(ctx context.Context, u *cluster.Up, model *check.Volume) error {
	client, err := nbd.Connect(u.NBD("v"))
	if err != nil {
		return err
	}
	defer client.Close()
	return model.VerifyCut(client)
}
