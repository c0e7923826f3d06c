package fsm

import (
	"errors"
	"slices"
	"testing"

	bolt "go.etcd.io/bbolt"

	"pstorage/meta/fsm/fsmpb"
)

func (b *bench) members() (ids []string) {
	_ = b.View(func(v *View) error {
		for _, m := range v.MetadataServers() {
			ids = append(ids, m.Id)
		}
		return nil
	})
	return ids
}

func wants(t *testing.T, b *bench, c any, want error) {
	t.Helper()
	if _, err := b.do(c); !errors.Is(err, want) {
		t.Errorf("%T %+v: %v, want %v", c, c, err, want)
	}
}

func founded(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	wants(t, b, &fsmpb.SetMember{Id: "1", Address: "a:1"}, nil)
	return b
}

func join(address, nonce string) *fsmpb.JoinMember {
	return &fsmpb.JoinMember{Address: address, ClientAddress: address + "c", Version: "0.1", Nonce: []byte(nonce)}
}

func TestAMetadataServersNumberIsNeverGivenTwice(t *testing.T) {
	b := founded(t)
	if m := must[*fsmpb.Member](t, b, join("b:1", "x")); m.Id != "2" {
		t.Errorf("the second is %s", m.Id)
	}
	wants(t, b, &fsmpb.RemoveMember{Id: 2}, nil)
	if m := must[*fsmpb.Member](t, b, join("b:1", "y")); m.Id != "3" {
		t.Errorf("after the second was removed: %s", m.Id)
	}
	wants(t, b, &fsmpb.RemoveMember{Id: 2}, ErrRemoved)
	wants(t, b, &fsmpb.RemoveMember{Id: 9}, ErrUnknownMember)
	wants(t, b, &fsmpb.SetMember{Id: "2", Address: "b:1"}, ErrRemoved) // it must not enter itself again
	if got := b.members(); !slices.Equal(got, []string{"1", "3"}) {
		t.Errorf("members %v", got)
	}
}

func TestAJoinAskedForTwiceGivesOneNumber(t *testing.T) {
	b := founded(t)
	first := must[*fsmpb.Member](t, b, join("b:1", "x"))
	wants(t, b, &fsmpb.SetMember{Id: first.Id, Address: "b:1", ClientAddress: "elsewhere"}, nil)
	if again := must[*fsmpb.Member](t, b, join("b:1", "x")); again.Id != first.Id || len(b.members()) != 2 {
		t.Errorf("again: %s, first: %s", again.Id, first.Id)
	}
}

func TestTwoMetadataServersNeverHaveOneAddress(t *testing.T) {
	b := founded(t)
	second := must[*fsmpb.Member](t, b, join("b:1", "x"))
	wants(t, b, join("b:1", "y"), ErrExists)
	wants(t, b, join("a:1", "y"), ErrExists)
	replacing := join("b:1", "z")
	replacing.Replaces = MemberNumber(second.Id)
	if m := must[*fsmpb.Member](t, b, replacing); m.Id != "3" || !slices.Equal(b.members(), []string{"1", "3"}) {
		t.Errorf("in place of one that never ran: %s of %v", m.Id, b.members())
	}
}

// The first server of a cluster that was made before further ones could join is in no count.
func TestNumbersBeginAfterThoseThatThereAre(t *testing.T) {
	b := founded(t)
	if err := b.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(clusterBucket).Delete(lastMemberKey) }); err != nil {
		t.Fatal(err)
	}
	if m := must[*fsmpb.Member](t, b, join("b:1", "x")); m.Id != "2" {
		t.Errorf("the second is %s", m.Id)
	}
}

func TestBadMembersAreRefused(t *testing.T) {
	b := founded(t)
	for _, c := range []any{join("", "x"), join("c:1", ""), &fsmpb.SetMember{Id: "x"}, &fsmpb.SetMember{Id: "0"}, &fsmpb.SetMember{Id: "01"}} {
		wants(t, b, c, ErrInvalid)
	}
	for i := len(b.members()); i < MaxMembers; i++ {
		wants(t, b, join(string(rune('a'+i)), string(rune('a'+i))), nil)
	}
	wants(t, b, join("more", "more"), ErrInvalid)
}

func TestTheLastMetadataServerStays(t *testing.T) {
	b := founded(t)
	wants(t, b, &fsmpb.RemoveMember{Id: 1}, ErrLastMember)
	wants(t, b, join("b:1", "x"), nil)
	wants(t, b, &fsmpb.RemoveMember{Id: 1}, nil)
	wants(t, b, &fsmpb.RemoveMember{Id: 2}, ErrLastMember)
}

func TestARecoveryLeavesOneMetadataServer(t *testing.T) {
	b := founded(t)
	wants(t, b, join("b:1", "x"), nil)
	wants(t, b, join("c:1", "y"), nil)
	wants(t, b, &fsmpb.Recovered{Id: 7}, ErrUnknownMember)
	wants(t, b, &fsmpb.Recovered{Id: 2}, nil)
	if got := b.members(); !slices.Equal(got, []string{"2"}) {
		t.Errorf("members %v", got)
	}
	wants(t, b, &fsmpb.SetMember{Id: "3", Address: "c:1"}, ErrRemoved)
	_ = b.View(func(v *View) error {
		if v.Recoveries() != 1 {
			t.Errorf("%d recoveries are counted", v.Recoveries())
		}
		return nil
	})
}
