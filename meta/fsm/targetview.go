package fsm

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"pstorage/meta/fsm/fsmpb"
)

// Target returns an iSCSI target, by its name as it is kept.
func (v *View) Target(name string) (*fsmpb.Target, error) {
	t := v.target(name)
	if t == nil {
		return nil, fmt.Errorf("target %s: %w", shorten(name), ErrUnknownTarget)
	}
	return t, nil
}

// Targets returns all iSCSI targets, by name.
func (v *View) Targets() []*fsmpb.Target { return v.targetList() }

// Checked returns a target as it would be kept, but for its LUNs and its revision, or says what is wrong with it.
func (v *View) Checked(t *fsmpb.Target) (*fsmpb.Target, error) { return v.checkedTarget(t) }

// Account returns an account, with its secret sealed.
func (v *View) Account(user string) (*fsmpb.Account, error) {
	if user != "" {
		if a := v.account(user); a != nil {
			return a, nil
		}
	}
	return nil, fmt.Errorf("account %s: %w", shorten(user), ErrUnknownAccount)
}

// Accounts returns all accounts, by name.
func (v *View) Accounts() (out []*fsmpb.Account) {
	for _, key := range keysWith(v.accounts, nil) {
		if a := v.account(string(key)); a != nil {
			out = append(out, a)
		}
	}
	return out
}

// Reservations returns what is reserved of a volume; revision 0: nothing ever was.
func (v *View) Reservations(file uint64) (*fsmpb.Reservations, error) {
	if _, err := v.fileNode(file); err != nil {
		return nil, err
	}
	return v.reserved(file), v.err
}

// Reserved calls yield for every volume of which something was reserved.
func (v *View) Reserved(yield func(file uint64, r *fsmpb.Reservations)) {
	for _, key := range keysWith(v.reservations, nil) {
		yield(number(key), v.reserved(number(key)))
	}
}

// KeyMark is by what the key that accounts are sealed with is known; nil: there is none yet.
func (v *View) KeyMark() []byte { return slices.Clone(v.cluster.Get(keyKey)) }

// checkTargets looks for contradictions between targets, their volumes and accounts.
func (v *View) checkTargets() error {
	volumes := map[uint64]string{} // of LUNs
	last := number(v.cluster.Get(lastTargetKey))
	for _, t := range v.targetList() {
		now, err := v.checkedTarget(t)
		if err != nil || !proto.Equal(t, now) {
			return fmt.Errorf("target %s is not as targets are kept: %v: %w", t.Name, err, ErrCorrupt)
		}
		if t.Revision == 0 || t.Revision > last || len(t.Luns) > maxLuns {
			return fmt.Errorf("target %s: revision %d of %d, %d LUNs: %w", t.Name, t.Revision, last, len(t.Luns), ErrCorrupt)
		}
		for i, l := range t.Luns {
			if i > 0 && t.Luns[i-1].Number >= l.Number || volumes[l.File] != "" {
				return fmt.Errorf("target %s: LUN %d on file %d is there twice: %w", t.Name, l.Number, l.File, ErrCorrupt)
			}
			volumes[l.File] = t.Name
		}
	}
	return v.checkVolumes(volumes)
}

// checkVolumes: what targets call theirs are files that say so, and no others do.
func (v *View) checkVolumes(volumes map[uint64]string) (err error) {
	v.Files(func(id uint64, n *fsmpb.Node) bool {
		if n.Target != volumes[id] || n.Target != "" && n.Directory {
			err = fmt.Errorf("file %d is of target %q, and LUN of %q: %w", id, n.Target, volumes[id], ErrCorrupt)
		}
		delete(volumes, id)
		return err == nil
	})
	for file, target := range volumes {
		if err == nil {
			err = fmt.Errorf("target %s: LUN on file %d, which is not there: %w", target, file, ErrCorrupt)
		}
	}
	v.Reserved(func(file uint64, r *fsmpb.Reservations) {
		if _, missing := v.fileNode(file); err == nil && (missing != nil || r.Revision == 0) {
			err = fmt.Errorf("reservations of file %d, revision %d: %v: %w", file, r.Revision, missing, ErrCorrupt)
		}
	})
	return err
}
