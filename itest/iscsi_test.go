package itest

import (
	"bytes"
	"context"
	encoding "encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pstorage/blockstore/block"
	initiator "pstorage/itest/iscsi"
	"pstorage/target/iscsi"
	"pstorage/target/scsi"
)

const (
	iqnGuarded = "iqn.2014-04.com.pstorage:guarded"
	iqnPlain   = "iqn.2014-04.com.pstorage:plain"
	hostName   = "iqn.2014-04.com.example:host"
	hostSecret = "secret-of-host"
	ourSecret  = "secret-of-target"
)

// stock is a catalog of volumes in memory that outlives the servers, with reservations that do, too.
type stock struct {
	mu      sync.Mutex
	volumes map[string]block.Device
	held    map[[16]byte]scsi.ReservationState
}

// shared is a volume that is not closed with its users.
type shared struct{ block.Device }

func (shared) Close() error { return nil }

func (s *stock) List(context.Context) ([]block.VolumeInfo, error) { return nil, nil }

func (s *stock) Open(_ context.Context, name string) (block.Device, block.VolumeInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.volumes[name]
	if d == nil {
		return nil, block.VolumeInfo{}, block.ErrNotFound
	}
	info := block.VolumeInfo{Name: name, Size: d.Size()}
	copy(info.ID[:], name)
	return shared{d}, info, nil
}

func (s *stock) Load(volume [16]byte) (scsi.ReservationState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held[volume], nil
}

func (s *stock) Save(volume [16]byte, state scsi.ReservationState) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[volume] = state
	return nil
}

func (s *stock) Durable() bool { return true }

func newStock() *stock {
	return &stock{volumes: map[string]block.Device{"a": block.NewMemory(64 * mib), "b": block.NewMemory(64 * mib)},
		held: map[[16]byte]scsi.ReservationState{}}
}

// servedTarget is a server on sockets.
type servedTarget struct {
	*iscsi.Server
	t         *testing.T
	targets   *iscsi.MemoryTargets
	addresses []string
}

// serve starts a server with two portals for what is in stock: one target behind CHAP, one open to all with two LUNs.
func (s *stock) serve(t *testing.T) *servedTarget {
	t.Helper()
	x := &servedTarget{t: t}
	var listeners []net.Listener
	var portals []iscsi.Portal
	for i := range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, l)
		x.addresses = append(x.addresses, l.Addr().String())
		portals = append(portals, iscsi.Portal{Address: l.Addr().String(), Group: uint16(i + 1)})
	}
	host := iscsi.Account{User: "host", Secret: iscsi.NewSecret([]byte(hostSecret))}
	us := iscsi.Account{User: "target", Secret: iscsi.NewSecret([]byte(ourSecret))}
	var err error
	x.targets, err = iscsi.NewMemoryTargets(
		iscsi.TargetInfo{Name: iqnGuarded, LUNs: []iscsi.LUN{{Number: 1, Volume: "a"}}, Accounts: []iscsi.Account{host}, Mutual: &us, Portals: portals},
		iscsi.TargetInfo{Name: iqnPlain, LUNs: []iscsi.LUN{{Number: 0, Volume: "a"}, {Number: 1, Volume: "b"}}, Portals: portals})
	if err != nil {
		t.Fatal(err)
	}
	x.Server = iscsi.New(iscsi.Config{Catalog: s, Targets: x.targets, Reservations: s})
	for _, l := range listeners {
		go x.Serve(l)
	}
	t.Cleanup(x.stop)
	return x
}

func (x *servedTarget) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := x.Shutdown(ctx); err != nil {
		x.t.Errorf("shutdown: %v", err)
	}
}

func (x *servedTarget) login(o initiator.Options) *initiator.Session {
	x.t.Helper()
	return x.loginAt(0, o)
}

func (x *servedTarget) loginAt(portal int, o initiator.Options) *initiator.Session {
	x.t.Helper()
	if o.Initiator == "" {
		o.Initiator = hostName
	}
	s, err := initiator.Login(newContext(x.t), x.addresses[portal], o)
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(func() { _ = s.Close() })
	return s
}

func mustDo(t *testing.T, s *initiator.Session, lun int, cdb, out []byte, room int) []byte {
	t.Helper()
	data, err := s.Do(lun, cdb, out, room)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestISCSIToolsProveWhoTheyAreAndSeeWhatTheyMay(t *testing.T) {
	need(t, "iscsi-inq", "iscsi-ls")
	x := newStock().serve(t)
	inquire := func(user, query string) error {
		url := fmt.Sprintf("iscsi://%s%s/%s/1%s", user, x.addresses[0], iqnGuarded, query)
		out, err := exec.CommandContext(newContext(t), "iscsi-inq", "-i", hostName, url).CombinedOutput()
		if err == nil && !strings.Contains(string(out), "PSTORAGE") {
			err = errors.New(string(out))
		}
		return err
	}
	mutual := "?target_user=target&target_password="
	for _, c := range []struct {
		user, query string
		in          bool
	}{
		{"host%" + hostSecret + "@", "", true},
		{"host%" + hostSecret + "@", mutual + ourSecret, true},
		{"host%" + hostSecret + "@", mutual + "not-our-secret", false},
		{"host%not-the-secret@", "", false},
		{"guest%" + hostSecret + "@", "", false},
		{"", "", false},
	} {
		if err := inquire(c.user, c.query); (err == nil) != c.in {
			t.Errorf("%q %q: %v; should get in: %v", c.user, c.query, err, c.in)
		}
	}
	out, err := exec.CommandContext(newContext(t), "iscsi-ls", "-i", hostName, "iscsi://"+x.addresses[0]).CombinedOutput()
	if text := string(out); err != nil || strings.Contains(text, iqnGuarded) || strings.Count(text, iqnPlain) != 2 {
		t.Errorf("a stranger is shown: %v\n%s", err, text)
	}
	s := x.login(initiator.Options{User: "host", Secret: hostSecret})
	if text, err := s.Targets(); err != nil || strings.Count(text, iqnGuarded) != 1 || strings.Count(text, x.addresses[1]) != 2 {
		t.Errorf("who has an account is shown: %v %q", err, text)
	}
}

func TestISCSIDataKeepWithDigestsAndCHAP(t *testing.T) {
	x := newStock().serve(t)
	random := rand.New(rand.NewPCG(1, 2))
	for _, o := range []initiator.Options{{HeaderDigest: true}, {DataDigest: true}, {HeaderDigest: true, DataDigest: true}, {}} {
		o.Target, o.User, o.Secret, o.TargetUser, o.TargetPass = iqnGuarded, "host", hostSecret, "target", ourSecret
		s := x.login(o)
		for range 50 {
			blocks := 1 + random.Uint32N(100)
			lba := random.Uint64N(100000)
			data := make([]byte, blocks*512)
			for i := range data {
				data[i] = byte(random.Uint32())
			}
			mustDo(t, s, 1, initiator.Write16(lba, blocks), data, 0)
			if got := mustDo(t, s, 1, initiator.Read16(lba, blocks), nil, len(data)); !bytes.Equal(got, data) {
				t.Fatalf("other data with %+v", o)
			}
		}
		if err := s.Logout(); err != nil {
			t.Error(err)
		}
	}
}

// groupStates returns the states that REPORT TARGET PORT GROUPS tells, by tag.
func groupStates(t *testing.T, s *initiator.Session) map[uint16]byte {
	t.Helper()
	b := mustDo(t, s, 0, []byte{0xa3, 0x0a, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0}, nil, 256)
	states := map[uint16]byte{}
	for b = b[4:]; len(b) >= 12; b = b[12:] {
		states[encoding.BigEndian.Uint16(b[2:])] = b[0] & 15
	}
	return states
}

func TestISCSIFailsOverBetweenPortals(t *testing.T) {
	x := newStock().serve(t)
	first, second := x.loginAt(0, initiator.Options{Target: iqnPlain, ISID: 1}), x.loginAt(1, initiator.Options{Target: iqnPlain, ISID: 2})
	data := bytes.Repeat([]byte{7}, 512)
	mustDo(t, first, 0, initiator.Write16(9, 1), data, 0)
	mustDo(t, second, 0, []byte{0xa4, 0x0a, 0, 0, 0, 0, 0, 0, 0, 12, 0, 0}, []byte{0, 0, 0, 0, 2, 0, 0, 1, 0, 0, 0, 2}, 0)
	if states := groupStates(t, first); states[1] != 2 || states[2] != 0 {
		t.Errorf("states %v", states)
	}
	if _, err := first.Do(0, initiator.Read16(9, 1), nil, 512); !errors.Is(err, initiator.ErrStatus) {
		t.Errorf("read through the portal in standby: %v", err)
	}
	if got := mustDo(t, second, 0, initiator.Read16(9, 1), nil, 512); !bytes.Equal(got, data) {
		t.Error("other data through the other portal")
	}
}

func TestISCSIReservationsOutliveTheTarget(t *testing.T) {
	s := newStock()
	x := s.serve(t)
	a := x.login(initiator.Options{Target: iqnPlain})
	for _, step := range [][2]byte{{6, 0}, {1, 3}} { // register, reserve: exclusive access
		key, service := uint64(0), uint64(0xabc)
		if step[0] == 1 {
			key, service = service, 0
		}
		cdb, list := initiator.Reserve(step[0], step[1], key, service, step[0] == 6)
		mustDo(t, a, 0, cdb, list, 0)
	}
	x.stop()
	y := s.serve(t)
	b := y.login(initiator.Options{Target: iqnPlain, Initiator: "iqn.2014-04.com.example:other"})
	if _, err := b.Do(0, initiator.Read16(0, 1), nil, 512); err == nil || !strings.Contains(err.Error(), "status 18") {
		t.Errorf("another initiator reads after the restart: %v", err)
	}
	a = y.login(initiator.Options{Target: iqnPlain})
	mustDo(t, a, 0, initiator.Read16(0, 1), nil, 512)
	cdb, list := initiator.Reserve(6, 0, 0, 0xb, false)
	mustDo(t, b, 0, cdb, list, 0)
	cdb, list = initiator.Reserve(5, 3, 0xb, 0xabc, false) // preempt and abort
	mustDo(t, b, 0, cdb, list, 0)
	mustDo(t, b, 0, initiator.Read16(0, 1), nil, 512)
	if _, err := a.Do(0, initiator.Read16(0, 1), nil, 512); err == nil {
		t.Error("who was preempted still reads")
	}
}

func TestISCSINewSessionTakesThePlaceOfTheOld(t *testing.T) {
	x := newStock().serve(t)
	old := x.login(initiator.Options{Target: iqnPlain, ISID: 1})
	other := x.login(initiator.Options{Target: iqnPlain, ISID: 2})
	mustDo(t, old, 0, make([]byte, 6), nil, 0)
	fresh := x.login(initiator.Options{Target: iqnPlain, ISID: 1})
	mustDo(t, fresh, 0, make([]byte, 6), nil, 0)
	if _, err := old.Do(0, make([]byte, 6), nil, 0); err == nil {
		t.Error("the old session goes on")
	}
	mustDo(t, other, 0, make([]byte, 6), nil, 0)
}

func TestISCSICompareAndWriteIsAtomicAcrossSessions(t *testing.T) {
	x := newStock().serve(t)
	workers, rounds := 4, amount(200, 50)
	var group sync.WaitGroup
	for i := range workers {
		s := x.loginAt(i%2, initiator.Options{Target: iqnPlain, ISID: byte(10 + i)})
		group.Go(func() { count(t, s, rounds) })
	}
	group.Wait()
	s := x.login(initiator.Options{Target: iqnPlain})
	if n := encoding.BigEndian.Uint64(mustDo(t, s, 0, initiator.Read16(5, 1), nil, 512)); n != uint64(workers*rounds) {
		t.Errorf("counted to %d, not %d", n, workers*rounds)
	}
}

// count adds one to the number in a block, again and again, as several hosts share a lock on disk.
func count(t *testing.T, s *initiator.Session, rounds int) {
	for range rounds {
		for {
			old, err := s.Do(0, initiator.Read16(5, 1), nil, 512)
			if err != nil {
				t.Error(err)
				return
			}
			next := bytes.Clone(old)
			encoding.BigEndian.PutUint64(next, encoding.BigEndian.Uint64(old)+1)
			if _, err = s.Do(0, initiator.CompareAndWrite(5), append(old, next...), 0); err == nil {
				break
			}
			if !strings.Contains(err.Error(), "status 02") {
				t.Error(err)
				return
			}
		}
	}
}

// slow keeps writes for a while, or until it is told to go on.
type slow struct {
	block.Device
	delay  func() time.Duration
	writes atomic.Int64
}

func (s *slow) Submit(batch []*block.Request) {
	for _, r := range batch {
		time.AfterFunc(s.delay(), func() {
			s.writes.Add(1)
			s.Device.Submit([]*block.Request{r})
		})
	}
}

func TestISCSIAbortedWritesTouchNothingAfterTheAnswer(t *testing.T) {
	stock := newStock()
	stock.volumes["a"] = &slow{Device: stock.volumes["a"], delay: func() time.Duration { return rand.N(20 * time.Millisecond) }}
	x := stock.serve(t)
	s := x.login(initiator.Options{Target: iqnPlain, ISID: 1})
	reader := x.login(initiator.Options{Target: iqnPlain, ISID: 2})
	mustDo(t, s, 0, make([]byte, 6), nil, 0)
	for round := range amount(40, 10) {
		var tags []uint32
		for i := range 30 {
			tag, err := s.Command(0, initiator.Write16(uint64(i), 1), bytes.Repeat([]byte{byte(round + 1)}, 512), 0)
			if err != nil {
				t.Fatal(err)
			}
			tags = append(tags, tag)
		}
		var before []byte
		if round%2 == 0 {
			end(t, s, initiator.ResetLUN, reserved)
		} else {
			for _, tag := range tags {
				end(t, s, initiator.AbortTask, tag)
			}
		}
		for range 3 { // what is there when the abort is answered stays
			now := mustDo(t, reader, 0, initiator.Read16(0, 30), nil, 30*512)
			if before != nil && !bytes.Equal(now, before) {
				t.Fatalf("round %d: data changed after the abort was answered", round)
			}
			before = now
		}
		mustDo(t, s, 0, make([]byte, 6), nil, 0)
	}
}

const reserved = 0xffffffff

// end sends a task management function and waits for its answer.
func end(t *testing.T, s *initiator.Session, function byte, referenced uint32) {
	t.Helper()
	tag, err := s.Manage(function, 0, referenced)
	for err == nil {
		var p initiator.PDU
		if p, err = s.Receive(); err == nil && p.Opcode() == 0x22 && p.Tag() == tag {
			return
		}
	}
	t.Fatal(err)
}

// stuck is a device that answers nothing until it is let go.
type stuck struct {
	block.Device
	gate chan struct{}
}

func (s *stuck) Submit(batch []*block.Request) {
	batch = append([]*block.Request(nil), batch...)
	go func() {
		<-s.gate
		s.Device.Submit(batch)
	}()
}

func TestISCSIVolumeThatHangsLeavesTheOthersAlone(t *testing.T) {
	stock := newStock()
	gate := make(chan struct{})
	stock.volumes["a"] = &stuck{stock.volumes["a"], gate}
	x := stock.serve(t)
	s := x.login(initiator.Options{Target: iqnPlain})
	mustDo(t, s, 0, make([]byte, 6), nil, 0)
	full := 0
	tags := map[uint32]bool{}
	for range 100 {
		tag, err := s.Command(0, initiator.Read16(0, 8), nil, 4096)
		if err != nil {
			t.Fatal(err)
		}
		tags[tag] = true
	}
	data := bytes.Repeat([]byte{3}, 4096)
	tag, err := s.Command(1, initiator.Write16(0, 8), data, 0)
	for err == nil {
		var p initiator.PDU
		if p, err = s.Receive(); err == nil && p.Tag() == tag && p.Status() != 2 {
			break
		} else if p.Tag() == tag { // unit attention
			tag, err = s.Command(1, initiator.Write16(0, 8), data, 0)
		} else if tags[p.Tag()] && p.Status() == scsi.TaskSetFull {
			full++
		} else {
			t.Fatalf("status %02x of a command at the volume that hangs", p.Status())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if full == 0 || full == 100 {
		t.Errorf("%d of 100 commands were told that the queue is full", full)
	}
	close(gate)
	if got := mustDo(t, s, 1, initiator.Read16(0, 8), nil, 4096); !bytes.Equal(got, data) {
		t.Error("other data")
	}
}

// descriptors counts the process's open files.
func descriptors(t *testing.T) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(files)
}

// settled waits until a count has come down to what it was, but for a few.
func settled(t *testing.T, what string, before int, count func() int) {
	t.Helper()
	for range 200 {
		if count() <= before+5 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%s: %d before, %d after", what, before, count())
}

func TestISCSILoginsThatComeAndGoLeaveNothing(t *testing.T) {
	x := newStock().serve(t)
	x.login(initiator.Options{Target: iqnPlain, ISID: 9})
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	for i := range amount(1000, 100) {
		s, err := initiator.Login(newContext(t), x.addresses[i%2], initiator.Options{Initiator: hostName, Target: iqnGuarded, User: "host", Secret: hostSecret})
		if err != nil {
			t.Fatal(err)
		}
		switch i % 3 {
		case 0:
			err = s.Logout()
		case 1:
			_, _ = s.Command(1, initiator.Read16(0, 100), nil, 51200)
			err = s.Close()
		default:
			err = s.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	settled(t, "files", files, func() int { return descriptors(t) })
	settled(t, "goroutines", goroutines, runtime.NumGoroutine)
}

// heap is what is in use after a collection.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

func TestISCSIThousandIdleSessionsCostLittle(t *testing.T) {
	x := newStock().serve(t)
	n := amount(1000, 200)
	before := heap()
	for i := range n {
		s := x.loginAt(i%2, initiator.Options{Target: iqnPlain, Initiator: fmt.Sprintf("%s-%d", hostName, i)})
		mustDo(t, s, 0, make([]byte, 6), nil, 0)
	}
	each := (heap() - before) / int64(n)
	t.Logf("%d bytes for each of %d sessions, both ends", each, n)
	if each > 96<<10 {
		t.Errorf("%d bytes for each of %d idle sessions", each, n)
	}
	s := x.login(initiator.Options{Target: iqnPlain, ISID: 200})
	mustDo(t, s, 0, initiator.Read16(0, 1), nil, 512)
}

func TestISCSISurvivesGarbageAndHalfOpenLogins(t *testing.T) {
	x := newStock().serve(t)
	random := rand.New(rand.NewPCG(3, 4))
	var open []net.Conn
	for i := range amount(1500, 300) {
		c, err := net.Dial("tcp", x.addresses[i%2])
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(garbage(random))
		if i%4 == 0 {
			open = append(open, c) // left half open
		} else {
			_ = c.Close()
		}
	}
	s := x.login(initiator.Options{Target: iqnGuarded, User: "host", Secret: hostSecret})
	mustDo(t, s, 1, make([]byte, 6), nil, 0)
	for _, c := range open {
		_ = c.Close()
	}
}

// garbage is a login request with some of its bytes changed, or cut off.
func garbage(random *rand.Rand) []byte {
	texts := []string{"InitiatorName=" + hostName, "TargetName=" + iqnGuarded, "SessionType=Normal", "AuthMethod=CHAP", "CHAP_A=7,5", "CHAP_R=0x", "X=" + strings.Repeat("y", 300)}
	random.Shuffle(len(texts), func(i, j int) { texts[i], texts[j] = texts[j], texts[i] })
	data := []byte(strings.Join(texts[:random.IntN(len(texts)+1)], "\x00") + "\x00")
	h := make([]byte, 48)
	h[0], h[1] = 0x43, byte(random.Uint32())
	h[6], h[7] = byte(len(data)>>8), byte(len(data))
	b := append(h, append(data, make([]byte, (4-len(data)%4)%4)...)...)
	for range random.IntN(4) {
		b[random.IntN(len(b))] = byte(random.Uint32())
	}
	return b[:random.IntN(len(b)+1)]
}
