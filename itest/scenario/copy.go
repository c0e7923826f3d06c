package scenario

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// ErrDiffers: what came back is not what was written.
var ErrDiffers = errors.New("the bytes differ")

// Copy writes random bytes to a volume of just that size over NBD, and reads them back over NBD and iSCSI, with
// several clients. iscsi may be empty.
func Copy(ctx context.Context, nbd, iscsi, dir string, bytes int64) error {
	source, back := filepath.Join(dir, "source"), filepath.Join(dir, "back")
	defer os.Remove(source)
	defer os.Remove(back)
	want, err := RandomFile(source, bytes)
	if err != nil {
		return err
	}
	if _, err := run(ctx, "nbdcopy", "--flush", source, nbd); err != nil {
		return err
	}
	same := func(how string) error {
		got, err := SumFile(back, bytes)
		if err == nil && got != want {
			err = fmt.Errorf("%s: %w", how, ErrDiffers)
		}
		return err
	}
	if _, err := run(ctx, "nbdcopy", nbd, back); err != nil {
		return err
	}
	if err := same("nbdcopy"); err != nil {
		return err
	}
	if _, err := run(ctx, "qemu-img", "compare", "-f", "raw", "-F", "raw", source, nbd); err != nil {
		return err
	}
	if iscsi == "" {
		return nil
	}
	if _, err := run(ctx, "qemu-img", "convert", "-f", "raw", "-O", "raw", iscsi, back); err != nil {
		return err
	}
	if err := same("qemu-img convert from iSCSI"); err != nil {
		return err
	}
	return copyWithISCSIDD(ctx, iscsi, back, bytes, same)
}

// copyWithISCSIDD uses iscsi-dd where there is one: not every packaging of libiscsi has it.
func copyWithISCSIDD(ctx context.Context, iscsi, back string, bytes int64, same func(string) error) error {
	if Need("iscsi-dd") != nil {
		return nil
	}
	if _, err := run(ctx, "iscsi-dd", "--src="+iscsi, "--dst="+back, "--blocks="+strconv.FormatInt(bytes/512, 10)); err != nil {
		return err
	}
	return same("iscsi-dd")
}
