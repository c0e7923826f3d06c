package backup

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"pstorage/backup/stream"
	"pstorage/blockstore/block"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// done waits for one request of a test's own.
type done chan struct{}

func (d done) Complete([]*block.Request) { close(d) }

func do(d block.Device, op block.Op, offset int64, data []byte, length int64) error {
	r := &block.Request{Op: op, Offset: offset, Length: length, Data: data, Done: make(done)}
	d.Submit([]*block.Request{r})
	<-r.Done.(done)
	return r.Err
}

func contents(t testing.TB, d block.Device) []byte {
	t.Helper()
	p := make([]byte, d.Size())
	must(t, do(d, block.Read, 0, p, d.Size()))
	return p
}

// scribble changes a device at random, and returns where.
func scribble(t testing.TB, rnd *rand.Rand, d block.Device, writes int) (touched []block.Extent) {
	t.Helper()
	for range writes {
		at := 512 * rnd.Int64N(d.Size()/512)
		n := min(512*(1+rnd.Int64N(600)), d.Size()-at)
		touched = append(touched, block.Extent{Offset: at, Length: n})
		if rnd.IntN(3) == 0 {
			must(t, do(d, block.WriteZeroes, at, nil, n))
			continue
		}
		p := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, rnd.Uint64()), int(n/8))
		must(t, do(d, block.Write, at, p, n))
	}
	return touched
}

func copyOf(t testing.TB, d block.Device, size int64) *block.Memory {
	t.Helper()
	m := block.NewMemory(size)
	must(t, do(m, block.Write, 0, contents(t, d), d.Size()))
	return m
}

// changedFrom makes the answers about what has been touched, by block, and no better.
func changedFrom(t testing.TB, d block.Device, touched []block.Extent) Changed {
	const changed, zero = 1, 2
	data := append(contents(t, d), make([]byte, block.Size)...)
	blocks := make([]int, len(data)/block.Size)
	for _, x := range touched {
		for b := x.Offset / block.Size; b*block.Size < x.Offset+x.Length; b++ {
			if blocks[b] = changed; bytes.Equal(data[b*block.Size:][:block.Size], make([]byte, block.Size)) {
				blocks[b] = zero
			}
		}
	}
	return func(_ context.Context, offset, length int64, most int) (out []block.Extent, _ error) {
		for end := offset + length; offset < end && len(out) < most; {
			first := blocks[offset/block.Size]
			x := block.Extent{Offset: offset, Allocated: first != 0, Zero: first == zero}
			for ; offset < end && blocks[offset/block.Size] == first; offset = min((offset/block.Size+1)*block.Size, end) {
			}
			x.Length = offset - x.Offset
			out = append(out, x)
		}
		return out, nil
	}
}

func export(t testing.TB, s Source, h stream.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := stream.NewWriter(&out, h)
	must(t, err)
	must(t, Export(t.Context(), s, w))
	return out.Bytes()
}

// powered is a device that loses what was not flushed, some of it, when its power goes, which is after some writes.
type powered struct {
	*block.Memory
	rnd    *rand.Rand
	left   int
	writes []*block.Request
}

var errPower = errors.New("the power is off")

// Submit takes writes, which reach the memory when they are flushed.
func (d *powered) Submit(batch []*block.Request) {
	for _, r := range batch {
		if d.left--; d.left < 0 {
			r.Err = errPower
		} else if r.Op == block.Flush {
			d.carry(func() bool { return true })
		} else {
			kept := *r
			kept.Data, kept.Done = bytes.Clone(r.Data), make(done)
			d.writes = append(d.writes, &kept)
		}
		block.CompleteAll([]*block.Request{r})
	}
}

func (d *powered) carry(survives func() bool) {
	for _, w := range d.writes {
		if survives() {
			d.Memory.Submit([]*block.Request{w})
			<-w.Done.(done)
		}
	}
	d.writes = nil
}

// fail loses power.
func (d *powered) fail() { d.carry(func() bool { return d.rnd.IntN(2) == 0 }) }

// Whatever the power takes, an import that goes on from what was noted last, with the same stream or one that begins there, ends with what was exported.
func TestAnImportGoesOnWhereItBroke(t *testing.T) {
	for seed := range uint64(30) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		base := block.NewMemory(512 * (10_000 + rnd.Int64N(10_000)))
		scribble(t, rnd, base, 30)
		source := copyOf(t, base, base.Size()+512*rnd.Int64N(5000))
		h := stream.Header{Snapshot: stream.ID{2}, Size: source.Size()}
		s := Source{Device: source}
		target := block.NewMemory(source.Size())
		if seed%2 == 0 {
			h.Base, h.BaseSize = stream.ID{1}, base.Size()
			s.Changed = changedFrom(t, source, scribble(t, rnd, source, 30))
			target = copyOf(t, base, source.Size())
		}
		whole := export(t, s, h)
		upto := int64(0)
		for tries := 0; ; tries++ {
			if tries > 50 {
				t.Fatalf("seed %d: it does not come to an end", seed)
			}
			p := whole
			if rnd.IntN(2) == 0 {
				h.From = upto
				p = export(t, s, h)
			}
			r, err := stream.NewReader(bytes.NewReader(p))
			must(t, err)
			d := &powered{Memory: target, rnd: rnd, left: 1 + rnd.IntN(25) + 10*tries}
			err = Import(t.Context(), Sink{Device: d, Upto: upto, Note: func(n int64) error {
				if n < upto || len(d.writes) > 0 {
					t.Errorf("seed %d: noted %d after %d, %d writes are not durable", seed, n, upto, len(d.writes))
				}
				upto = n
				return nil
			}}, r)
			if err == nil {
				break
			}
			if !errors.Is(err, errPower) {
				t.Fatalf("seed %d: %v", seed, err)
			}
			d.fail()
		}
		if !bytes.Equal(contents(t, target), contents(t, source)) {
			t.Fatalf("seed %d: what was imported is not what was exported", seed)
		}
	}
}

func TestAStreamThatIsNotWholeEndsAnImport(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	source := block.NewMemory(8 << 20)
	scribble(t, rnd, source, 20)
	whole := export(t, Source{Device: source}, stream.Header{Snapshot: stream.ID{2}, Size: source.Size()})
	damaged := bytes.Clone(whole)
	damaged[len(damaged)/2] ^= 4
	for name, c := range map[string]struct {
		p    []byte
		want error
	}{"whole": {whole, nil}, "cut": {whole[:len(whole)-1], stream.ErrTruncated}, "cut in the middle": {whole[:len(whole)/2], stream.ErrTruncated}, "damaged": {damaged, stream.ErrFormat}} {
		r, err := stream.NewReader(bytes.NewReader(c.p))
		must(t, err)
		target, upto := block.NewMemory(source.Size()), int64(0)
		err = Import(t.Context(), Sink{Device: target, Note: func(n int64) error { upto = n; return nil }}, r)
		if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("%s: %v", name, err)
		}
		if want := contents(t, source); !bytes.Equal(contents(t, target)[:upto], want[:upto]) || upto == 0 {
			t.Errorf("%s: what is noted, %d bytes, is not there", name, upto)
		}
	}
}

func TestAStreamForSomethingElseIsNotBegun(t *testing.T) {
	source := block.NewMemory(1 << 20)
	h := stream.Header{Snapshot: stream.ID{2}, Size: source.Size(), From: 4096}
	p := export(t, Source{Device: source}, h)
	for name, c := range map[string]struct {
		sink Sink
		want error
	}{"a gap": {Sink{Device: source, Upto: 512}, ErrGap}, "another size": {Sink{Device: block.NewMemory(2 << 20), Upto: 4096}, ErrSize}} {
		r, err := stream.NewReader(bytes.NewReader(p))
		must(t, err)
		c.sink.Note = func(int64) error { t.Error(name, "something was noted"); return nil }
		if err := Import(t.Context(), c.sink, r); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// failing fails reads, from some place on.
type failing struct {
	*block.Memory
	from int64
}

func (d failing) Submit(batch []*block.Request) {
	for _, r := range batch {
		if r.Offset >= d.from {
			r.Err = block.ErrIO
			block.CompleteAll([]*block.Request{r})
			continue
		}
		d.Memory.Submit([]*block.Request{r})
	}
}

// limited takes so many bytes.
type limited struct {
	bytes.Buffer
	left int
}

var errFull = errors.New("no room")

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errFull
	}
	return l.Buffer.Write(p)
}

func TestAnExportThatFailsHasNoEnd(t *testing.T) {
	source := block.NewMemory(64 << 20)
	for at := int64(0); at < source.Size(); at += 1 << 20 {
		must(t, do(source, block.Write, at, bytes.Repeat([]byte{1}, 4096), 4096))
	}
	ctx, cancel := context.WithCancel(t.Context())
	unknown := func(context.Context, int64, int64, int) ([]block.Extent, error) { return nil, block.ErrUnavailable }
	for name, c := range map[string]struct {
		s    Source
		ctx  context.Context
		room int
		want error
	}{
		"reads fail":    {Source{Device: failing{source, 40 << 20}}, t.Context(), 1 << 30, block.ErrIO},
		"writing fails": {Source{Device: source}, t.Context(), 20_000, errFull},
		"it is stopped": {Source{Device: source, Progress: func(int64) { cancel() }}, ctx, 1 << 30, context.Canceled},
		"extents fail":  {Source{Device: source, Changed: unknown}, t.Context(), 1 << 30, block.ErrUnavailable},
	} {
		out := &limited{left: c.room}
		w, err := stream.NewWriter(out, stream.Header{Snapshot: stream.ID{2}, Size: source.Size()})
		must(t, err)
		if err := Export(c.ctx, c.s, w); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		r, err := stream.NewReader(&out.Buffer)
		must(t, err)
		for err == nil {
			_, err = r.Next(make([]byte, stream.MaxData))
		}
		if !errors.Is(err, stream.ErrTruncated) {
			t.Errorf("%s: what was written ends with %v", name, err)
		}
	}
}
