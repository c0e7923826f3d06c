package storm

import (
	"context"
	"encoding/binary"
	"fmt"
	"time"

	"pstorage/itest/iscsi"
)

// Verify reads everything that was written, with nobody else there.
func (a *Abuse) Verify(ctx context.Context) error {
	for _, u := range a.users {
		if err := u.verify(ctx); err != nil {
			return fmt.Errorf("%s, in the end: %w", u.name, err)
		}
	}
	for lun := range a.shared {
		if err := a.verifyShared(ctx, lun); err != nil {
			return err
		}
	}
	return nil
}

// verify logs in again, which ends what was in flight.
func (u *user) verify(ctx context.Context) error {
	if err := u.login(ctx); err != nil {
		return err
	}
	defer u.drop()
	if err := u.s.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	for at := 0; at < len(u.region.sectors); at += slotSectors {
		data, err := u.s.Do(u.region.lun, iscsi.Read16(u.region.first+uint64(at), slotSectors), nil, slotSectors*sectorSize)
		if err == nil {
			err = u.region.check(at, data)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// verifyShared compares what COMPARE AND WRITE has added to a sector with what it said to have added.
func (a *Abuse) verifyShared(ctx context.Context, lun int) error {
	s, err := a.lab.enter(ctx, "auditor")
	if err != nil {
		return err
	}
	defer s.Close()
	data, err := s.Do(lun, iscsi.Read16(sharedSector, 1), nil, sectorSize)
	if err != nil {
		return err
	}
	sum, least := int64(binary.BigEndian.Uint64(data)), a.shared[lun].done.Load()
	if most := least + a.shared[lun].unsure.Load(); sum < least || sum > most {
		return fmt.Errorf("LUN %d: COMPARE AND WRITE has added %d to the shared sector; %d to %d were said to be done", lun, sum, least, most)
	}
	return nil
}
