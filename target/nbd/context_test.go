package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"pstorage/blockstore/block"
)

// archive is a shelf whose volume "demo" has older states: since "one" the second and fourth of its 4 KiB blocks were written, the fourth with zeros; since "two" nothing.
type archive struct {
	*shelf
	asked  atomic.Int64
	opened atomic.Int64 // and not closed
	refuse error
}

func (a *archive) Older(_ context.Context, name string) ([]string, error) {
	if a.asked.Add(1); name != "demo" {
		return nil, nil
	}
	return []string{"two", "one"}, nil
}

func (a *archive) Since(_ context.Context, _, older string) (block.Changes, error) {
	if a.refuse != nil && older == "two" {
		return nil, a.refuse
	}
	a.opened.Add(1)
	return &pages{a, older}, nil
}

type pages struct {
	*archive
	older string
}

func (p *pages) Changed(_ context.Context, offset, length int64, most int) (list []block.Change, err error) {
	for end := offset + length; offset < end && len(list) < most; offset += block.Size {
		no := offset / block.Size
		written := p.older == "one" && (no == 1 || no == 3)
		list = append(list, block.Change{Offset: offset, Length: block.Size, Changed: written, Zero: written && no == 3})
	}
	return list, nil
}

func (p *pages) Close() error { p.archive.opened.Add(-1); return nil }

// contexts reads the replies to an option about contexts.
func (p *peer) contexts(option uint32, export string, queries ...string) (names []string, ids []uint32) {
	p.t.Helper()
	p.option(option, queriesFor(export, queries...))
	for {
		kind, data := p.optionReply(option)
		switch kind {
		case repAck:
			return names, ids
		case repMetaContext:
			names, ids = append(names, string(data[4:])), append(ids, binary.BigEndian.Uint32(data))
		default:
			p.t.Fatalf("reply %#x: %s", kind, data)
		}
	}
}

func (p *peer) optionReply(option uint32) (kind uint32, data []byte) {
	p.t.Helper()
	b := p.read(optionReplySize)
	if got := binary.BigEndian.Uint32(b[8:]); got != option {
		p.t.Fatalf("reply to option %d, want %d", got, option)
	}
	return binary.BigEndian.Uint32(b[12:]), p.read(int(binary.BigEndian.Uint32(b[16:])))
}

// negotiating is a peer that has greeted and knows structured replies, or extended headers.
func negotiating(t *testing.T, path string, extended bool) *peer {
	p := dial(t, path)
	p.greet(flagFixedNewstyle | flagNoZeroes)
	option := uint32(optStructuredReply)
	if extended {
		option = optExtendedHeaders
	}
	p.option(option, nil)
	p.wantReply(option, repAck)
	return p
}

func (p *peer) goTo(export string) {
	p.t.Helper()
	p.option(optGo, infoFor(export))
	p.wantReply(optGo, repInfo)
	p.wantReply(optGo, repAck)
}

func newArchive(t *testing.T) (a *archive, path string) {
	a = &archive{shelf: demo(t)}
	_, path = startWith(t, Config{Catalog: a})
	return a, path
}

func TestContextsAreListedByWhatIsAsked(t *testing.T) {
	a, path := newArchive(t)
	all := []string{"base:allocation", "qemu:dirty-bitmap:two", "pstorage:changed:two", "qemu:dirty-bitmap:one", "pstorage:changed:one"}
	for _, c := range []struct {
		export  string
		queries []string
		want    []string
	}{
		{"demo", nil, all},
		{"fixed", nil, all[:1]},
		{"demo", []string{"base:"}, all[:1]},
		{"demo", []string{"qemu:"}, []string{all[1], all[3]}},
		{"demo", []string{"qemu:dirty-bitmap:", "base:allocation"}, []string{all[0], all[1], all[3]}},
		{"demo", []string{"pstorage:"}, []string{all[2], all[4]}},
		{"demo", []string{"pstorage:changed:one", "qemu:allocation-depth", "base:none", "qemu:dirty-bitmap", "", ":"}, all[4:]},
		{"fixed", []string{"qemu:"}, nil},
	} {
		if names, _ := negotiating(t, path, false).contexts(optListMetaContext, c.export, c.queries...); !slices.Equal(names, c.want) {
			t.Errorf("%s, %q: %q, want %q", c.export, c.queries, names, c.want)
		}
	}
	p, asked := negotiating(t, path, false), a.asked.Load()
	p.contexts(optListMetaContext, "demo", "base:allocation")
	p.contexts(optSetMetaContext, "demo", "base:allocation")
	if a.asked.Load() != asked {
		t.Error("the catalog was asked for nothing")
	}
}

// Selecting takes names alone; numbers are of the connection, and what was selected for one export means nothing for another.
func TestContextsAreSelectedByTheirNames(t *testing.T) {
	a, path := newArchive(t)
	p := negotiating(t, path, false)
	names, ids := p.contexts(optSetMetaContext, "demo", "qemu:", "qemu:dirty-bitmap:", "qemu:dirty-bitmap:three", "qemu:dirty-bitmap:one", "base:allocation",
		"qemu:dirty-bitmap:one", "base:")
	if !slices.Equal(names, []string{"qemu:dirty-bitmap:one", "base:allocation"}) || !slices.Equal(ids, []uint32{1, 2}) {
		t.Errorf("selected %q, %v", names, ids)
	}
	p.goTo("fixed")
	p.request(header{cmd: cmdBlockStatus, cookie: 1, length: 4096}, nil)
	if b := p.read(structuredSize); binary.BigEndian.Uint16(b[6:]) != replyTypeError || a.opened.Load() != 0 {
		t.Errorf("status of another export: %x, %d open", b, a.opened.Load())
	}
	many := make([]string, 0, 99)
	for i := range 99 {
		many = append(many, fmt.Sprint("base:", i))
	}
	if names, _ := negotiating(t, path, false).contexts(optSetMetaContext, "demo", many...); names != nil {
		t.Errorf("selected %q", names)
	}
}

func TestStatusTellsOfEveryContextSelected(t *testing.T) {
	const clean, dirty = 0, stateChanged
	for _, extended := range []bool{false, true} {
		a, path := newArchive(t)
		p := negotiating(t, path, extended)
		p.contexts(optSetMetaContext, "demo", "pstorage:changed:one", "base:allocation", "qemu:dirty-bitmap:one", "qemu:dirty-bitmap:two")
		p.goTo("demo")
		request := func(h header, payload []byte) {
			h.cmd, h.cookie = cmdBlockStatus, 7
			p.write(terms{extended: extended}.encode(h, payload))
		}
		want := map[uint32][]uint64{
			1: {4096, clean, 4096, dirty, 4096, clean, 4096, dirty | stateChangedToZeros, 16384, clean},
			2: {32768, 0},
			3: {4096, clean, 4096, dirty, 4096, clean, 4096, dirty, 16384, clean},
			4: {32768, clean},
		}
		request(header{length: 32768}, nil)
		p.wantStatus(extended, want)
		request(header{flags: cmdFlagReqOne, offset: 4096, length: 32768}, nil)
		p.wantStatus(extended, map[uint32][]uint64{1: {4096, dirty}, 2: {32768, 0}, 3: {4096, dirty}, 4: {4096, clean}})
		if extended {
			request(header{flags: cmdFlagPayload, length: filterSize + 8}, filter(32768, 4, 1))
			p.wantStatus(true, map[uint32][]uint64{1: want[1], 4: want[4]})
			for _, bad := range [][]byte{filter(32768), filter(32768, 1, 1), filter(32768, 5), filter(32768, 0), filter(32768, 1, 2, 3, 4, 1), append(filter(32768, 1), 0), filter(1<<40, 1)} {
				request(header{flags: cmdFlagPayload, length: uint64(len(bad))}, bad)
				if b := p.read(extendedSize); binary.BigEndian.Uint16(b[6:]) != replyTypeError {
					t.Errorf("%x: %x", bad, b)
				} else {
					p.read(int(binary.BigEndian.Uint64(b[24:])))
				}
			}
		}
		p.Close()
		<-a.closed
		await(t, "all is closed", func() bool { return a.opened.Load() == 0 })
	}
}

func filter(length uint64, ids ...uint32) []byte {
	b := binary.BigEndian.AppendUint64(nil, length)
	for _, id := range ids {
		b = binary.BigEndian.AppendUint32(b, id)
	}
	return b
}

// wantStatus reads a reply: chunks by the number of the context, of which the last alone says that it is.
func (p *peer) wantStatus(extended bool, want map[uint32][]uint64) {
	p.t.Helper()
	for left := len(want); left > 0; left-- {
		id, runs, done := p.statusChunk(extended)
		if !slices.Equal(runs, want[id]) || done != (left == 1) {
			p.t.Errorf("context %d: %d, done %v, want %d", id, runs, done, want[id])
		}
	}
}

func (p *peer) statusChunk(extended bool) (id uint32, runs []uint64, done bool) {
	p.t.Helper()
	if !extended {
		b := p.read(structuredSize)
		done = binary.BigEndian.Uint16(b[4:]) == replyFlagDone
		data := p.read(int(binary.BigEndian.Uint32(b[16:])))
		for rest := data[4:]; len(rest) > 0; rest = rest[4:] {
			runs = append(runs, uint64(binary.BigEndian.Uint32(rest)))
		}
		return binary.BigEndian.Uint32(data), runs, done
	}
	b := p.read(extendedSize)
	done = binary.BigEndian.Uint16(b[4:]) == replyFlagDone
	data := p.read(int(binary.BigEndian.Uint64(b[24:])))
	if n := binary.BigEndian.Uint32(data[4:]); int(n) != len(data[8:])/16 {
		p.t.Errorf("%d extents in %d bytes", n, len(data))
	}
	for rest := data[8:]; len(rest) > 0; rest = rest[8:] {
		runs = append(runs, binary.BigEndian.Uint64(rest))
	}
	return binary.BigEndian.Uint32(data), runs, done
}

// A state that went away after it was selected refuses the export; nothing stays open.
func TestAnOlderStateThatIsGoneRefusesTheExport(t *testing.T) {
	a, path := newArchive(t)
	a.refuse = errors.New("deleted meanwhile")
	p := negotiating(t, path, false)
	p.contexts(optSetMetaContext, "demo", "qemu:dirty-bitmap:one", "qemu:dirty-bitmap:two")
	p.option(optGo, infoFor("demo"))
	if kind, text := p.optionReply(optGo); kind != repErrUnknown || !strings.Contains(string(text), "deleted meanwhile") {
		t.Errorf("reply %#x: %s", kind, text)
	}
	if <-a.closed; a.opened.Load() != 0 {
		t.Errorf("%d are open", a.opened.Load())
	}
	p.contexts(optSetMetaContext, "demo", "qemu:dirty-bitmap:one")
	p.goTo("demo")
}
