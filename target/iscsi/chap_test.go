package iscsi

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
)

var (
	in      = Account{User: "host", Secret: NewSecret([]byte("secret-of-the-host"))}
	out     = Account{User: "target", Secret: NewSecret([]byte("secret-of-target"))}
	guarded = "iqn.2014-04.com.pstorage:guarded"
	public  = "iqn.2014-04.com.pstorage:public"
)

// registry has a target behind CHAP, one for a chosen initiator and one for all.
func registry(t testing.TB) *MemoryTargets {
	t.Helper()
	m, err := NewMemoryTargets(
		TargetInfo{Name: guarded, LUNs: []LUN{{Number: 1, Volume: "disk"}}, Accounts: []Account{in}, Mutual: &out},
		TargetInfo{Name: "iqn.2014-04.com.pstorage:chosen", LUNs: []LUN{{Number: 1, Volume: "disk"}}, Initiators: []string{"iqn.test:Chosen"}},
		TargetInfo{Name: public, LUNs: []LUN{{Number: 0, Volume: "disk"}, {Number: 300, Volume: "other", BlockSize: 4096, ReadOnly: true}}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// pairs makes a map of a login answer.
func pairs(p pdu) map[string]string {
	m := map[string]string{}
	for _, s := range answers(p) {
		k, v, _ := strings.Cut(s, "=")
		m[k] = v
	}
	return m
}

func statusOf(p pdu) loginStatus { return loginStatus(p.u32(36) >> 16) }

// exchange sends a request of the security stage and returns the answer.
func (c *client) exchange(next byte, keys ...string) pdu {
	c.t.Helper()
	h := loginHeader(c, stageSecurity, next)
	if next == stageSecurity {
		h[1] = 0
	}
	c.send(h, text(keys...))
	return c.receive()
}

// challenged goes as far as the target's challenge.
func (c *client) challenged(algorithms string, keys ...string) (id byte, challenge []byte, algorithm int) {
	c.t.Helper()
	r := c.exchange(stageOperational, append(keys, "AuthMethod=CHAP,None")...)
	if r.header[1]&flagTransit != 0 || pairs(r)["AuthMethod"] != "CHAP" {
		c.t.Fatalf("answer to AuthMethod: %x %q", r.header, answers(r))
	}
	r = c.exchange(stageSecurity, "CHAP_A="+algorithms)
	got := pairs(r)
	if _, err := fmt.Sscan(got["CHAP_I"]+" "+got["CHAP_A"], &id, &algorithm); err != nil {
		c.t.Fatalf("answer to CHAP_A: %x %q", r.header, answers(r))
	}
	challenge, err := binaryValue(got["CHAP_C"], maxChallenge)
	if err != nil || len(challenge) != challengeSize {
		c.t.Fatalf("challenge %q", got["CHAP_C"])
	}
	return id, challenge, algorithm
}

func proof(algorithm int, id byte, s Secret, challenge []byte) string {
	return "0x" + hex.EncodeToString((&chap{algorithm: algorithm}).digest(id, s, challenge))
}

var guardedKeys = []string{"InitiatorName=iqn.test:host", "TargetName=" + guarded}

func TestCHAPLetsInWhoKnowsTheSecret(t *testing.T) {
	for list, want := range map[string]int{"5": 5, "9,7,5": 7, "6": 6, "8,5": 8} {
		within(t, Config{Targets: registry(t)}, func(t *testing.T, p *portal) {
			c := p.client()
			id, challenge, algorithm := c.challenged(list, guardedKeys...)
			if algorithm != want {
				t.Errorf("of %s algorithm %d was chosen", list, algorithm)
			}
			r := c.exchange(stageOperational, "CHAP_N=host", "CHAP_R="+proof(algorithm, id, in.Secret, challenge))
			if statusOf(r) != loginSuccess || r.header[1] != flagTransit|stageOperational {
				t.Fatalf("answer %x", r.header)
			}
			c.login("MaxBurstLength=262144")
			c.do(tur(), 0, nil)
			c.good(tur(), 0, nil)
		})
	}
}

func TestCHAPRefusesAllElse(t *testing.T) {
	good := func(id byte, challenge []byte) []string {
		return []string{"CHAP_N=host", "CHAP_R=" + proof(5, id, in.Secret, challenge)}
	}
	for what, answer := range map[string]func(id byte, challenge []byte) []string{
		"another secret": func(id byte, c []byte) []string {
			return []string{"CHAP_N=host", "CHAP_R=" + proof(5, id, out.Secret, c)}
		},
		"another user": func(id byte, c []byte) []string {
			return []string{"CHAP_N=guest", "CHAP_R=" + proof(5, id, in.Secret, c)}
		},
		"unknown user, guessed stand-in": func(id byte, c []byte) []string {
			return []string{"CHAP_N=guest", "CHAP_R=" + proof(5, id, NewSecret(c), c)}
		},
		"another id":  func(id byte, c []byte) []string { return good(id+1, c) },
		"no response": func(byte, []byte) []string { return []string{"CHAP_N=host"} },
		"no user":     func(id byte, c []byte) []string { return good(id, c)[1:] },
		"no digits":   func(byte, []byte) []string { return []string{"CHAP_N=host", "CHAP_R=0xzz"} },
		"nothing":     func(byte, []byte) []string { return []string{"X-nothing=1"} },
		"own challenge": func(id byte, c []byte) []string {
			return append(good(id, c), "CHAP_I=1", "CHAP_C=0x"+hex.EncodeToString(c))
		},
		"empty challenge": func(id byte, c []byte) []string { return append(good(id, c), "CHAP_I=1", "CHAP_C=0x") },
		"id too large":    func(id byte, c []byte) []string { return append(good(id, c), "CHAP_I=256", "CHAP_C=0x0102") },
		"challenge alone": func(id byte, c []byte) []string { return append(good(id, c), "CHAP_C=0x0102") },
	} {
		t.Run(what, func(t *testing.T) {
			within(t, Config{Targets: registry(t)}, func(t *testing.T, p *portal) {
				c := p.client()
				id, challenge, _ := c.challenged("5", guardedKeys...)
				r := c.exchange(stageOperational, answer(id, challenge)...)
				if statusOf(r) != loginAuthFailed || len(r.data) != 0 {
					t.Errorf("status %04x, %q", statusOf(r), answers(r))
				}
				c.closed()
			})
		})
	}
}

func TestTargetProvesItselfOnlyToWhoHasProvenItself(t *testing.T) {
	within(t, Config{Targets: registry(t)}, func(t *testing.T, p *portal) {
		c := p.client()
		id, challenge, _ := c.challenged("7", guardedKeys...)
		mine := []byte("a challenge of the initiator's")
		r := c.exchange(stageOperational, "CHAP_N=host", "CHAP_R="+proof(7, id, in.Secret, challenge), "CHAP_I=77", "CHAP_C=0x"+hex.EncodeToString(mine))
		got := pairs(r)
		if statusOf(r) != loginSuccess || got["CHAP_N"] != "target" || got["CHAP_R"] != proof(7, 77, out.Secret, mine) {
			t.Errorf("status %04x, %q", statusOf(r), answers(r))
		}
	})
}

func TestLoginThatSkipsTheAuthenticationIsRefused(t *testing.T) {
	within(t, Config{Targets: registry(t)}, func(t *testing.T, p *portal) {
		skip := map[string]func(c *client) pdu{
			"operational at once": func(c *client) pdu {
				c.send(loginHeader(c, stageOperational, stageFull), text(guardedKeys...))
				return c.receive()
			},
			"no method": func(c *client) pdu { return c.exchange(stageOperational, guardedKeys...) },
			"none": func(c *client) pdu {
				return c.exchange(stageOperational, append(slices.Clone(guardedKeys), "AuthMethod=None")...)
			},
			"no algorithm": func(c *client) pdu {
				c.exchange(stageOperational, append(slices.Clone(guardedKeys), "AuthMethod=CHAP")...)
				return c.exchange(stageOperational, "CHAP_A=99")
			},
			"response before the challenge": func(c *client) pdu {
				c.exchange(stageOperational, append(slices.Clone(guardedKeys), "AuthMethod=CHAP")...)
				return c.exchange(stageOperational, "CHAP_N=host", "CHAP_R=0x00")
			},
			"another name after the proof": func(c *client) pdu {
				id, challenge, _ := c.challenged("5", guardedKeys...)
				return c.exchange(stageOperational, "CHAP_N=host", "CHAP_R="+proof(5, id, in.Secret, challenge), "InitiatorName=iqn.test:root")
			},
		}
		for what, f := range skip {
			c := p.client()
			if r := f(c); statusOf(r) == loginSuccess {
				t.Errorf("%s: status %04x, %x", what, statusOf(r), r.header[1])
			}
			c.closed()
		}
	})
}

// seen asks which targets there are.
func seen(c *client) (names []string) {
	c.t.Helper()
	h := c.newHeader(opText | flagImmediate)
	h[1] = flagFinal
	h.put(16, 5)
	h.put(20, reservedTag)
	h.put(24, c.cmdSN)
	c.send(h, text("SendTargets=All"))
	for _, a := range answers(c.receive()) {
		if n, ok := strings.CutPrefix(a, "TargetName="); ok {
			names = append(names, n)
		}
	}
	return names
}

func TestDiscoveryShowsWhatTheInitiatorMayLogInTo(t *testing.T) {
	chosen := "iqn.2014-04.com.pstorage:chosen"
	within(t, Config{Targets: registry(t)}, func(t *testing.T, p *portal) {
		c := p.client()
		c.login("InitiatorName=iqn.test:host", "SessionType=Discovery")
		if got := seen(c); !slices.Equal(got, []string{public}) {
			t.Errorf("a stranger is shown %q", got)
		}
		c = p.client()
		c.login("InitiatorName=iqn.test:chosen", "SessionType=Discovery")
		if got := seen(c); !slices.Equal(got, []string{chosen, public}) {
			t.Errorf("the chosen one is shown %q", got)
		}
		c = p.client()
		id, challenge, _ := c.challenged("5", "InitiatorName=iqn.test:host", "SessionType=Discovery")
		c.exchange(stageOperational, "CHAP_N=host", "CHAP_R="+proof(5, id, in.Secret, challenge))
		c.login()
		if got := seen(c); !slices.Equal(got, []string{guarded, public}) {
			t.Errorf("who has an account is shown %q", got)
		}
		c = p.client()
		c.send(loginHeader(c, stageOperational, stageFull), text("InitiatorName=iqn.test:host", "TargetName="+chosen))
		if r := c.receive(); statusOf(r) != loginForbidden {
			t.Errorf("login to another's target: status %04x", statusOf(r))
		}
	})
}

func TestSecretsAreNotShown(t *testing.T) {
	s := NewSecret([]byte("do not tell anybody"))
	a := Account{"u", s}
	var b strings.Builder
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "account", a, "secret", s)
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "account", a, "secret", s)
	j, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	all := b.String() + string(j) + fmt.Sprint(s, a, &a) + fmt.Sprintf("%v %+v %#v %s %q %x %d", s, a, a, s, s, s, s)
	for _, part := range []string{"tell", hex.EncodeToString([]byte("tell")), "116 101"} {
		if strings.Contains(all, part) {
			t.Errorf("%q is in %s", part, all)
		}
	}
}

func TestTargetsThatCannotBeAreRefused(t *testing.T) {
	short := Account{"u", NewSecret([]byte("eleven byte"))}
	for what, x := range map[string]TargetInfo{
		"no name":         {},
		"LUN too large":   {Name: public, LUNs: []LUN{{Number: maxLUN + 1}}},
		"LUN twice":       {Name: public, LUNs: []LUN{{Number: 1}, {Number: 1}}},
		"odd block size":  {Name: public, LUNs: []LUN{{BlockSize: 1024}}},
		"portal by name":  {Name: public, Portals: []Portal{{Address: "host:3260"}}},
		"short secret":    {Name: public, Accounts: []Account{short}},
		"no user":         {Name: public, Accounts: []Account{{Secret: in.Secret}}},
		"one secret both": {Name: public, Accounts: []Account{in}, Mutual: &Account{"t", in.Secret}},
	} {
		if err := (&MemoryTargets{}).Put(x); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}

func FuzzCHAP(f *testing.F) {
	f.Add("7,5", "host", "0x00", "1", "0xab")
	f.Add("5", "host", "0bAAAA", "300", "0b")
	f.Fuzz(func(t *testing.T, list, user, response, id, challenge string) {
		var c chap
		secret := func(string) (Secret, bool) { return in.Secret, true }
		own := func(string) *Account { return &out }
		c.key("CHAP_A", list)
		if _, err := c.proceed(nil, secret, own); err != nil || c.challenge == nil {
			return
		}
		c.key("CHAP_N", user)
		c.key("CHAP_R", response)
		c.key("CHAP_I", id)
		c.key("CHAP_C", challenge)
		if _, err := c.proceed(nil, secret, own); err == nil || c.done {
			t.Error("a guess was right")
		}
	})
}
