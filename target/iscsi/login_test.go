package iscsi

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"pstorage/blockstore/block"
)

// answers returns the pairs of a login or text answer.
func answers(p pdu) []string {
	var out []string
	for _, s := range strings.Split(string(p.data), "\x00") {
		if s != "" {
			out = append(out, s)
		}
	}
	return out
}

func TestLoginInOneStep(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.client()
		r := c.login(append(slices.Clone(normalKeys), "HeaderDigest=None,CRC32C", "X-y=1")...)
		want := []string{"InitialR2T=No", "ImmediateData=Yes", "MaxBurstLength=262144", "FirstBurstLength=65536", "HeaderDigest=None",
			"X-y=NotUnderstood", "TargetPortalGroupTag=1", "MaxRecvDataSegmentLength=262144"}
		if got := answers(r); !slices.Equal(got, want) {
			t.Errorf("answered %q", got)
		}
		if r.header[1] != flagTransit|stageOperational<<2|stageFull || r.header[15] == 0 {
			t.Errorf("flags %x, session handle %x", r.header[1], r.header[14:16])
		}
		if r.u32(28) != c.cmdSN || r.u32(32) != c.cmdSN+defaultQueue-1 {
			t.Errorf("ExpCmdSN %d, MaxCmdSN %d, CmdSN %d", r.u32(28), r.u32(32), c.cmdSN)
		}
	})
}

func TestLoginThroughAllStagesWithTextInPieces(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.client()
		all := text(append(slices.Clone(normalKeys), "AuthMethod=CHAP,None")...)
		h := loginHeader(c, stageSecurity, 0)
		h[1] = flagContinue
		c.send(h, all[:50])
		if r := c.receive(); r.header[1] != 0 || len(r.data) != 0 || r.header[36] != 0 {
			t.Fatalf("answer to a piece: %x", r.header)
		}
		c.send(loginHeader(c, stageSecurity, stageOperational), all[50:])
		r := c.receive()
		if r.header[1] != flagTransit|stageOperational || !slices.Contains(answers(r), "AuthMethod=None") {
			t.Fatalf("answer: %x %q", r.header, answers(r))
		}
		if r.header[14] != 0 || r.header[15] != 0 {
			t.Error("session handle before the end of the login")
		}
		h = loginHeader(c, stageOperational, 0)
		h[1] = stageOperational << 2
		c.send(h, text("MaxOutstandingR2T=4"))
		if r := c.receive(); r.header[1] != stageOperational<<2 || !slices.Contains(answers(r), "MaxOutstandingR2T=1") {
			t.Fatalf("answer without transit: %x %q", r.header, answers(r))
		}
		c.send(loginHeader(c, stageOperational, stageFull), nil)
		if r := c.receive(); r.header[1] != flagTransit|stageOperational<<2|stageFull {
			t.Fatalf("last answer: %x", r.header)
		}
		c.do(tur(), 0, nil)
	})
}

func TestLoginIsRefusedWithTheReason(t *testing.T) {
	name, target := "InitiatorName=iqn.test:host", "TargetName="+DefaultPrefix+"disk"
	tests := map[string]struct {
		change func(h header)
		keys   []string
		status loginStatus
	}{
		"no initiator name":   {nil, []string{target}, loginMissing},
		"no target":           {nil, []string{name}, loginMissing},
		"bad initiator name":  {nil, []string{"InitiatorName=a b", target}, loginInitiatorError},
		"unknown volume":      {nil, []string{name, "TargetName=" + DefaultPrefix + "nothing"}, loginNotFound},
		"another's name":      {nil, []string{name, "TargetName=iqn.2000-01.com.example:x"}, loginNotFound},
		"letters that grow":   {nil, []string{name, "TargetName=\u0130qn.2014-04.com.pstorage\u0130"}, loginNotFound},
		"prefix only":         {nil, []string{name, "TargetName=" + DefaultPrefix}, loginNotFound},
		"session type":        {nil, []string{name, target, "SessionType=Other"}, loginSessionType},
		"CHAP only":           {nil, []string{name, target, "AuthMethod=CHAP"}, loginAuthFailed},
		"key twice":           {nil, []string{name, target, name}, loginInitiatorError},
		"not text":            {nil, []string{name, target, "nothing"}, loginInitiatorError},
		"version":             {func(h header) { h[3] = 1 }, []string{name, target}, loginVersion},
		"full feature first":  {func(h header) { h[1] = flagTransit | stageFull<<2 | stageFull }, []string{name, target}, loginInitiatorError},
		"stage that is not":   {func(h header) { h[1] = flagTransit | stageOperational<<2 | 2 }, []string{name, target}, loginInitiatorError},
		"back to security":    {func(h header) { h[1] = flagTransit | stageOperational<<2 }, []string{name, target}, loginInitiatorError},
		"transit and more":    {func(h header) { h[1] |= flagContinue }, []string{name, target}, loginInitiatorError},
		"session not there":   {func(h header) { h[15] = 99 }, []string{name, target}, loginNoSession},
		"initiator name long": {nil, []string{"InitiatorName=" + strings.Repeat("x", 224), target}, loginInitiatorError},
	}
	for what, x := range tests {
		t.Run(what, func(t *testing.T) {
			within(t, Config{}, func(t *testing.T, p *portal) {
				c := p.client()
				h := loginHeader(c, stageOperational, stageFull)
				if x.change != nil {
					x.change(h)
				}
				c.send(h, text(x.keys...))
				r := c.receive()
				if got := loginStatus(r.u32(36) >> 16); got != x.status {
					t.Errorf("status %04x, want %04x", got, x.status)
				}
				c.closed()
			})
		})
	}
}

func TestVolumeThatCannotBeOpenedIsUnavailable(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		p.shelf.err = errors.New("no leader")
		c := p.client()
		c.send(loginHeader(c, stageOperational, stageFull), text(normalKeys...))
		if r := c.receive(); loginStatus(r.u32(36)>>16) != loginUnavailable {
			t.Errorf("status %04x", r.u32(36)>>16)
		}
		p.shelf.err = nil
		p.session()
	})
}

func TestSecondConnectionOfASessionIsRefused(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		first := p.client()
		handle := first.login(normalKeys...).header[14:16]
		c := p.client()
		h := loginHeader(c, stageOperational, stageFull)
		copy(h[14:], handle)
		h[21] = 1 // another connection number
		c.send(h, text(normalKeys...))
		if r := c.receive(); loginStatus(r.u32(36)>>16) != loginTooMany {
			t.Errorf("status %04x", r.u32(36)>>16)
		}
		first.do(tur(), 0, nil)
	})
}

func TestSlowLoginIsCutOff(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.client()
		c.conn.Write(loginHeader(c, stageOperational, stageFull)[:20])
		c.closed() // after loginTime, which passes by itself when everything waits
	})
}

func TestGarbageInsteadOfALoginClosesTheConnection(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		for _, first := range []byte{opCommand, opNopOut, opText, 0x47 /* GET */} {
			c := p.client()
			c.send(c.newHeader(first), nil)
			c.closed()
		}
		c := p.client()
		h := loginHeader(c, stageOperational, stageFull)
		h.setDataLen(loginSegment + 1)
		c.conn.Write(h)
		c.closed()
	})
}

func TestEndlessLoginIsCutOff(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.client()
		for range maxLoginPDUs + 1 {
			h := loginHeader(c, stageOperational, 0)
			h[1] = flagContinue | stageOperational<<2
			if _, err := c.conn.Write(c.encode(h, text("A=1"))); err != nil {
				return
			}
			if _, err := c.tryReceive(); err != nil {
				return
			}
		}
		t.Error("goes on")
	})
}

func TestTooManyConnectionsAreClosedAtOnce(t *testing.T) {
	within(t, Config{Connections: 2}, func(t *testing.T, p *portal) {
		a := p.session()
		p.client()
		c := p.client()
		c.closed()
		a.good(tur(), 0, nil)
	})
}

func TestDiscoveryListsTheTargets(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		c := p.client()
		c.login("InitiatorName=iqn.test:host", "SessionType=Discovery")
		ask := func(what string) []string {
			h := c.newHeader(opText)
			h[1] = flagFinal
			c.tag++
			h.put(16, c.tag)
			h.put(20, reservedTag)
			h.put(24, c.cmdSN)
			c.cmdSN++
			c.send(h, text(what))
			r := c.receive()
			if r.opcode() != opTextReply || !r.final() || r.tag() != c.tag {
				t.Fatalf("answer: %x", r.header)
			}
			return answers(r)
		}
		disk, other := "TargetName="+DefaultPrefix+"disk", "TargetName="+DefaultPrefix+"other"
		at := "TargetAddress=pipe,1"
		for what, want := range map[string][]string{
			"SendTargets=All":                          {disk, at, other, at},
			"SendTargets=" + DefaultPrefix + "other":   {other, at},
			"SendTargets=" + DefaultPrefix + "unknown": nil,
			"SendTargets=Some":                         {"SendTargets=Reject"},
			"sendtargets=All":                          {"sendtargets=NotUnderstood"},
			"MaxBurstLength=512":                       {"MaxBurstLength=Reject"},
			"SendTargets=":                             {"SendTargets=Reject"},
		} {
			if got := ask(what); !slices.Equal(got, want) {
				t.Errorf("%s: %q", what, got)
			}
		}
		h := c.command(tur(), 0, 0)
		c.send(h, nil)
		if r := c.receive(); r.opcode() != opReject {
			t.Errorf("a SCSI command in a discovery session: %x", r.header)
		}
	})
}

func TestLongListOfTargetsComesInPieces(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		p.Server.cfg.Targets = &volumeTargets{catalog: manyVolumes(100), prefix: DefaultPrefix}
		c := p.client()
		c.login("InitiatorName=iqn.test:host", "SessionType=Discovery", "MaxRecvDataSegmentLength=1024")
		var all []byte
		ttt, what := uint32(reservedTag), text("SendTargets=All")
		for {
			h := c.newHeader(opText | flagImmediate)
			h[1] = flagFinal
			h.put(16, 5)
			h.put(20, ttt)
			h.put(24, c.cmdSN)
			c.send(h, what)
			r := c.receive()
			if len(r.data) > 1024 {
				t.Fatalf("%d bytes", len(r.data))
			}
			all = append(all, r.data...)
			if r.final() {
				break
			}
			ttt, what = r.u32(20), nil
		}
		if n := strings.Count(string(all), "TargetName="); n != 100 {
			t.Errorf("%d targets", n)
		}
	})
}

type volumes struct {
	block.Catalog
	list []block.VolumeInfo
}

func manyVolumes(n int) *volumes {
	v := &volumes{}
	for range n {
		v.list = append(v.list, block.VolumeInfo{Name: "volume-with-a-name"})
	}
	return v
}

func (v *volumes) List(context.Context) ([]block.VolumeInfo, error) { return v.list, nil }

func TestNewSessionWaitsForWhatTheOldOneBegan(t *testing.T) {
	within(t, Config{}, func(t *testing.T, p *portal) {
		g := newGated(p.shelf.devs["disk"])
		p.shelf.devs["disk"] = g
		old := p.session()
		old.send(old.command(write10(0, 1), 512, flagWrite), pattern(512, 1))
		<-g.came
		c := p.client()
		c.send(loginHeader(c, stageOperational, stageFull), text(normalKeys...))
		old.closed()
		answered := make(chan pdu)
		go func() { answered <- c.receive() }()
		synctest.Wait()
		select {
		case <-answered:
			t.Error("logged in while a write of the old session is at the device")
		default:
		}
		g.release()
		if r := <-answered; r.u32(36) != 0 {
			t.Errorf("status %x", r.u32(36))
		}
	})
}
