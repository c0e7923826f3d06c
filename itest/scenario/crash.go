package scenario

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"pstorage/itest/check"
	"pstorage/itest/cluster"
	"pstorage/itest/nbd"
)

// CrashBytes is how much of the volume the crash loop works on.
const CrashBytes = 64 << 20

// CrashUp kills a whole cluster in one process again and again while it is written to, starts it anew, and checks that every
// acknowledged write is there. u runs, and its volume is new. report is told of each round.
func CrashUp(ctx context.Context, u *cluster.Up, volume string, rounds int, seed uint64, report func(string)) error {
	model := check.New(CrashBytes, seed)
	random := rand.New(rand.NewPCG(seed, 2))
	for round := range rounds {
		pause := time.Duration(50+random.IntN(1500)) * time.Millisecond
		if err := crashOnce(ctx, u, volume, model, pause); err != nil {
			return fmt.Errorf("round %d, killed after %v: %w", round+1, pause, err)
		}
		report(fmt.Sprintf("round %d: killed after %v, %d writes (%d MiB) so far, all there", round+1, pause, model.Writes, model.Bytes>>20))
	}
	return nil
}

func crashOnce(ctx context.Context, u *cluster.Up, volume string, model *check.Volume, pause time.Duration) error {
	client, err := nbd.Connect(u.NBD(volume))
	if err != nil {
		return err
	}
	killed := make(chan struct{})
	timer := time.AfterFunc(pause, func() { u.Kill(); close(killed) })
	err = model.Run(client, 1<<30, ctx.Done())
	_ = client.Close()
	if timer.Stop() {
		return fmt.Errorf("before the crash: %w", err)
	}
	<-killed
	if !errors.Is(err, nbd.ErrBroken) {
		return fmt.Errorf("at the crash: %w", err)
	}
	if err := u.Again(ctx); err != nil {
		return err
	}
	if client, err = nbd.Connect(u.NBD(volume)); err != nil {
		return fmt.Errorf("after the restart: %w", err)
	}
	defer client.Close()
	if err := model.Verify(client); err != nil {
		return fmt.Errorf("after the restart: %w", err)
	}
	return nil
}
