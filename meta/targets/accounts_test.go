package targets

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"

	"pstorage/meta/fsm"
	"pstorage/meta/targetpb"
)

func (r *registry) account(user, secret string) {
	r.t.Helper()
	ok[*targetpb.Account](r)(r.CreateAccount(background, &targetpb.AccountRequest{User: user, Secret: []byte(secret)}))
}

func TestOnlyWhoHasTheKeyOpensSecrets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key")
		secret := rapid.SliceOfN(rapid.Byte(), minSecret, maxSecret).Draw(t, "secret")
		user := rapid.String().Draw(t, "user")
		sealed, err := seal(key, user, secret)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := open(key, user, sealed); err != nil || !bytes.Equal(back, secret) {
			t.Fatal("the secret is another now, or cannot be opened:", err)
		}
		if bytes.Contains(sealed, secret) {
			t.Fatal("the secret is to be seen")
		}
		if _, err := open(key, user+"x", sealed); err == nil {
			t.Fatal("opened for another account")
		}
		at := rapid.IntRange(0, len(sealed)-1).Draw(t, "at")
		sealed[at] ^= 1
		if _, err := open(key, user, sealed); err == nil {
			t.Fatalf("opened although byte %d is another", at)
		}
		sealed[at] ^= 1
		key[0] ^= 1
		if _, err := open(key, user, sealed); err == nil {
			t.Fatal("opened with another key")
		}
	})
}

func FuzzOpen(f *testing.F) {
	key := make([]byte, 32)
	sealed, _ := seal(key, "u", []byte("0123456789ab"))
	f.Add(sealed)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if secret, err := open(key, "u", b); err == nil && string(secret) != "0123456789ab" {
			t.Errorf("%x is a secret", b)
		}
	})
}

func TestSecretsGoToTheNodeOfTheirTargetsAlone(t *testing.T) {
	bubble(t, func(r *registry) {
		const secret, other = "the secret of the initiators", "the secret of the target"
		r.account("u", secret)
		r.account("m", other)
		a, b := r.node('a'), r.node('b')
		r.create("t", "10.0.0.1", a.host)
		ok[*targetpb.Target](r)(r.SetTarget(background, &targetpb.SetTargetRequest{Name: "t", Account: new("u"), Mutual: new("m")}))
		a.sync()
		b.sync()
		if a.secret["u"] != secret || a.secret["m"] != other || len(b.secret) != 0 {
			t.Error("the node of the target has not got its secrets, or another node has got some")
		}
		list := ok[*targetpb.ListAccountsReply](r)(r.ListAccounts(background, &targetpb.ListAccountsRequest{}))
		if len(list.Accounts) != 2 || list.Accounts[1].User != "u" || len(list.Accounts[1].Targets) != 1 || list.Accounts[1].ChangedUnix == 0 {
			t.Errorf("%v", list)
		}
		var state strings.Builder
		if err := r.cluster.Machine.View(func(v *fsm.View) error {
			for _, bucket := range v.Dump() {
				for k, v := range bucket {
					state.WriteString(k + v)
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		for where, text := range map[string]string{"state": state.String(), "log": r.log.String(), "list": list.String()} {
			if strings.Contains(text, secret) || strings.Contains(text, other) {
				t.Errorf("a secret is to be seen in the %s", where)
			}
		}
	})
}

func TestSecretsHaveTheirLength(t *testing.T) {
	bubble(t, func(r *registry) {
		for _, n := range []int{0, minSecret - 1, maxSecret + 1} {
			_, err := r.CreateAccount(background, &targetpb.AccountRequest{User: "u", Secret: bytes.Repeat([]byte("x"), n)})
			r.want(codes.InvalidArgument, err)
			if strings.Contains(err.Error(), "xxx") {
				t.Error("the error tells the secret")
			}
		}
		r.account("u", strings.Repeat("x", minSecret))
		r.account("v", strings.Repeat("x", maxSecret))
		_, err := r.CreateAccount(background, &targetpb.AccountRequest{User: "u", Secret: bytes.Repeat([]byte("x"), 20)})
		r.want(codes.AlreadyExists, err)
		_, err = r.SetAccount(background, &targetpb.AccountRequest{User: "w", Secret: bytes.Repeat([]byte("x"), 20)})
		r.want(codes.NotFound, err)
		_, err = r.ListAccounts(background, &targetpb.ListAccountsRequest{User: "w"})
		r.want(codes.NotFound, err)
		ok[*targetpb.DeleteAccountReply](r)(r.DeleteAccount(background, &targetpb.DeleteAccountRequest{User: "v"}))
	})
}

// A target that proved itself with the initiators' own secret would give them the answer to their own challenge.
func TestBothDirectionsHaveTheirOwnSecrets(t *testing.T) {
	bubble(t, func(r *registry) {
		for _, user := range []string{"u", "v"} {
			r.account(user, "one and the same")
		}
		r.account("w", "another one of these")
		create := func(mutual string) error {
			_, err := r.CreateTarget(background, &targetpb.CreateTargetRequest{Name: "t", Portals: []*targetpb.Portal{{Address: "10.0.0.1"}}, Account: "u", Mutual: mutual})
			return err
		}
		r.want(codes.InvalidArgument, create("v"))
		r.want(codes.OK, create("w"))
		_, err := r.SetTarget(background, &targetpb.SetTargetRequest{Name: "t", Mutual: new("v")})
		r.want(codes.InvalidArgument, err)
		for _, user := range []string{"u", "w"} {
			_, err = r.SetAccount(background, &targetpb.AccountRequest{User: user, Secret: []byte(map[string]string{"u": "another one of these", "w": "one and the same"}[user])})
			r.want(codes.InvalidArgument, err)
		}
	})
}

// A leader without the key lets nodes keep what they have, rather than tell them of targets that they cannot serve.
func TestALeaderWithoutTheKeyAssignsNoAccounts(t *testing.T) {
	bubble(t, func(r *registry) {
		n := r.node('a')
		r.account("u", "the secret of the user")
		r.create("t", "10.0.0.1", n.host)
		key := r.cluster.Key
		r.cluster.Key = nil
		n.sync() // no account yet
		_, err := r.CreateAccount(background, &targetpb.AccountRequest{User: "v", Secret: []byte("another secret")})
		r.want(codes.Unavailable, err)
		ok[*targetpb.Target](r)(r.SetTarget(background, &targetpb.SetTargetRequest{Name: "t", Account: new("u")}))
		_, err = n.trySync(0)
		r.want(codes.Unavailable, err)
		r.cluster.Key = bytes.Repeat([]byte{1}, 32)
		if out := n.sync(); len(out.Targets) != 1 || len(out.Credentials) != 0 {
			t.Error("a secret was opened with the wrong key")
		}
		r.cluster.Key, n.has = key, 0
		if n.sync(); n.secret["u"] != "the secret of the user" {
			t.Error("the secret is lost")
		}
	})
}
