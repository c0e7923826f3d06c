package stream

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// sampleHeader is of a volume that ends within a block.
func sampleHeader() Header {
	return Header{Snapshot: ID{15: 2}, Base: ID{15: 1}, Size: 9<<20 + 512, BaseSize: 8 << 20, From: 4096, Created: 1397222211, Name: "demo@monday"}
}

func sampleRecords() []Record {
	pattern := func(n int) []byte {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(i*7 + i>>8)
		}
		return p
	}
	return []Record{
		{Data, 4096, 4096, pattern(4096)},
		{Zeros, 8192, 1 << 22, nil},
		{Data, 5 << 20, 1024, pattern(1024)},
		{Data, 9 << 20, 512, pattern(512)},
	}
}

func encode(t testing.TB, h Header, records []Record) []byte {
	var out bytes.Buffer
	w, err := NewWriter(&out, h)
	must(t, err)
	must(t, put(w, records))
	must(t, w.End())
	return out.Bytes()
}

func put(w *Writer, records []Record) error {
	for _, r := range records {
		var err error
		if r.Kind == Data {
			err = w.Data(r.Offset, r.Data)
		} else {
			err = w.Zeros(r.Offset, r.Length)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// buffer is the tests' own, one at a time: they decode very often.
var buffer = make([]byte, MaxData)

// decode returns all records before the error; io.EOF is that of a whole stream.
func decode(p []byte) (h Header, out []Record, err error) {
	r, err := NewReader(bytes.NewReader(p))
	if err != nil {
		return h, nil, err
	}
	for {
		rec, err := r.Next(buffer)
		if err != nil {
			return r.Header(), out, err
		}
		rec.Data = slices.Clone(rec.Data)
		out = append(out, rec)
	}
}

func same(a, b []Record) bool {
	return slices.EqualFunc(a, b, func(a, b Record) bool {
		return a.Kind == b.Kind && a.Offset == b.Offset && a.Length == b.Length && bytes.Equal(a.Data, b.Data)
	})
}

func TestFormatOfVersion1NeverChanges(t *testing.T) {
	got := encode(t, sampleHeader(), sampleRecords())
	golden := filepath.Join("testdata", "v1.export")
	if *update {
		must(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Error("streams written now differ from the golden file of version 1")
	}
	h, records, err := decode(want)
	if h != sampleHeader() || !same(records, sampleRecords()) || !errors.Is(err, io.EOF) {
		t.Errorf("the golden file is read as %+v, %d records, %v", h, len(records), err)
	}
}

func TestABeginningIsTakenForNoMore(t *testing.T) {
	whole, records := encode(t, sampleHeader(), sampleRecords()), sampleRecords()
	for n := range whole {
		_, got, err := decode(whole[:n])
		if !errors.Is(err, ErrTruncated) || errors.Is(err, ErrFormat) {
			t.Fatalf("the first %d bytes: %v", n, err)
		}
		if len(got) > len(records) || !same(got, records[:len(got)]) {
			t.Fatalf("the first %d bytes have other records", n)
		}
	}
}

func TestEveryDamagedBitIsNoticed(t *testing.T) {
	whole, records := encode(t, sampleHeader(), sampleRecords()), sampleRecords()
	for bit := range len(whole) * 8 {
		whole[bit/8] ^= 1 << (bit % 8)
		_, got, err := decode(whole)
		if err == nil || errors.Is(err, io.EOF) || len(got) > len(records) || !same(got, records[:len(got)]) {
			t.Fatalf("bit %d is another: %d records, %v", bit, len(got), err)
		}
		whole[bit/8] ^= 1 << (bit % 8)
	}
}

// Records that are all right by themselves: one is missing, doubled, elsewhere, or from another stream; something follows the end.
func TestRecordsOutOfPlaceAreNoticed(t *testing.T) {
	h := sampleHeader()
	records := []Record{{Data, 4096, 512, make([]byte, 512)}, {Data, 8192, 512, make([]byte, 512)}, {Data, 12288, 512, make([]byte, 512)}}
	whole := encode(t, h, records)
	cuts := []int{0, 512, 512 + 544, 512 + 2*544, 512 + 3*544, len(whole)}
	part := func(i int) []byte { return whole[cuts[i]:cuts[i+1]] }
	other := h
	other.Created++
	foreign := encode(t, other, records)
	for name, p := range map[string][]byte{
		"missing":           slices.Concat(part(0), part(1), part(3), part(4)),
		"first missing":     slices.Concat(part(0), part(2), part(3), part(4)),
		"doubled":           slices.Concat(part(0), part(1), part(1), part(2), part(3), part(4)),
		"swapped":           slices.Concat(part(0), part(2), part(1), part(3), part(4)),
		"end too early":     slices.Concat(part(0), part(1), part(4)),
		"of another stream": slices.Concat(part(0), part(1), foreign[cuts[2]:]),
		"another header":    slices.Concat(foreign[:512], whole[512:]),
		"something follows": slices.Concat(whole, []byte{0}),
		"twice":             slices.Concat(whole, whole),
	} {
		if _, _, err := decode(p); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, got, err := decode(whole); !errors.Is(err, io.EOF) || !same(got, records) {
		t.Errorf("as it was: %v", err)
	}
}

func TestWhatIsNoStreamIsNotWritten(t *testing.T) {
	for name, change := range map[string]func(*Header){
		"no snapshot": func(h *Header) { h.Snapshot = ID{} }, "itself as base": func(h *Header) { h.Base = h.Snapshot },
		"no size": func(h *Header) { h.Size = 0 }, "no sectors": func(h *Header) { h.Size++ }, "a base that is larger": func(h *Header) { h.BaseSize = h.Size + 512 },
		"a base without size": func(h *Header) { h.BaseSize = 0 }, "from beyond": func(h *Header) { h.From = h.Size + 512 },
		"a long name": func(h *Header) { h.Name = string(make([]byte, MaxName+1)) }, "a name with a zero": func(h *Header) { h.Name = "a\x00" },
	} {
		h := sampleHeader()
		change(&h)
		if _, err := NewWriter(io.Discard, h); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, r := range map[string]Record{
		"before from": {Data, 0, 512, make([]byte, 512)}, "nothing": {Zeros, 4096, 0, nil}, "beyond the end": {Zeros, 9 << 20, 1024, nil},
		"no sectors": {Data, 4096, 100, make([]byte, 100)}, "too long": {Data, 4096, MaxData + 512, make([]byte, MaxData+512)}, "overflowing": {Zeros, 4096, -512, nil},
	} {
		w, err := NewWriter(io.Discard, sampleHeader())
		must(t, err)
		if err := put(w, []Record{r}); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// file is one in memory.
type file struct {
	data []byte
	at   int64
}

func (f *file) Read(p []byte) (int, error) {
	if f.at >= int64(len(f.data)) {
		return 0, io.EOF
	}
	n := copy(p, f.data[f.at:])
	f.at += int64(n)
	return n, nil
}

func (f *file) Write(p []byte) (int, error) {
	f.data = append(f.data[:f.at:f.at], p...)
	f.at = int64(len(f.data))
	return len(p), nil
}

func (f *file) Seek(at int64, _ int) (int64, error) { f.at = at; return at, nil }
func (f *file) Truncate(n int64) error              { f.data = f.data[:n]; return nil }

func TestAnExportGoesOnWhereItBroke(t *testing.T) {
	h, records := sampleHeader(), sampleRecords()
	whole := encode(t, h, records)
	for n := len(whole); n >= 0; n -= 5 {
		f := &file{data: slices.Clone(whole[:n])}
		w, done, err := Resume(f, h)
		must(t, err)
		if done != (n == len(whole)) {
			t.Fatalf("after %d bytes: done %v", n, done)
		}
		if !done {
			left := slices.IndexFunc(records, func(r Record) bool { return r.Offset >= w.Next() })
			if left < 0 {
				left = len(records)
			}
			must(t, put(w, records[left:]))
			must(t, w.End())
		}
		if !bytes.Equal(f.data, whole) {
			t.Fatalf("after %d bytes it became another stream", n)
		}
	}
}

func TestOnlyTheSameExportIsGoneOnWith(t *testing.T) {
	h := sampleHeader()
	whole := encode(t, h, sampleRecords())
	for name, change := range map[string]func(*Header){
		"snapshot": func(h *Header) { h.Snapshot[0]++ }, "base": func(h *Header) { h.Base[0]++ }, "size": func(h *Header) { h.Size += 512 }, "from": func(h *Header) { h.From += 512 },
	} {
		other := h
		change(&other)
		f := &file{data: slices.Clone(whole[:len(whole)-1])}
		if _, _, err := Resume(f, other); !errors.Is(err, ErrOther) || len(f.data) != len(whole)-1 {
			t.Errorf("another %s: %v, %d bytes are left", name, err, len(f.data))
		}
	}
	whole[600] ^= 1
	f := &file{data: slices.Clone(whole)}
	if _, _, err := Resume(f, h); !errors.Is(err, ErrFormat) || !bytes.Equal(f.data, whole) {
		t.Errorf("a damaged one: %v", err)
	}
}

func TestAnyRecordsComeBackAsTheyWere(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		h := Header{Snapshot: ID{1}, Size: 512 * (1 + rnd.Int64N(20_000)), Name: fmt.Sprint("v@", seed)}
		var records []Record
		for at := int64(0); ; {
			at += 512 * rnd.Int64N(300)
			n := 512 * (1 + rnd.Int64N(400))
			if at+n > h.Size {
				break
			}
			r := Record{Zeros, at, n, nil}
			if rnd.IntN(2) == 0 {
				r.Kind, r.Data = Data, make([]byte, n)
				r.Data[rnd.Int64N(n)] = byte(seed)
			}
			records, at = append(records, r), at+n
		}
		got, out, err := decode(encode(t, h, records))
		if got != h || !same(out, records) || !errors.Is(err, io.EOF) {
			t.Fatalf("seed %d: %+v, %d of %d records, %v", seed, got, len(out), len(records), err)
		}
	}
}

// FuzzReader: what is accepted as a whole is, written again, the same bytes; nothing else ends well.
func FuzzReader(f *testing.F) {
	whole := encode(f, sampleHeader(), sampleRecords())
	f.Add(whole)
	f.Add(whole[:600])
	small := Header{Snapshot: ID{1}, Size: 4096}
	f.Add(encode(f, small, nil))
	f.Add(encode(f, small, []Record{{Zeros, 512, 1024, nil}, {Data, 2048, 512, make([]byte, 512)}}))
	f.Fuzz(func(t *testing.T, p []byte) {
		h, records, err := decode(p)
		switch {
		case errors.Is(err, io.EOF):
			if !bytes.Equal(encode(t, h, records), p) {
				t.Error("written again, it differs")
			}
		case !errors.Is(err, ErrFormat) && !errors.Is(err, ErrTruncated):
			t.Errorf("no sort of error: %v", err)
		}
	})
}
