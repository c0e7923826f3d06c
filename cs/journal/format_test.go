package journal

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pstorage/cs/chunk"
	"pstorage/cs/disk"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sampleFile is the beginning of a journal with a record of each kind.
func sampleFile(t *testing.T) []byte {
	m := disk.NewMem(1)
	j := begun(t, m, Options{})
	must(t, j.Append(sample(1, 2)))
	must(t, j.Sync())
	must(t, j.Append(sample(2, 0)))
	file := make([]byte, ringOffset+int(j.Head().Off))
	_, err := j.f.ReadAt(file, 0)
	must(t, err)
	return file
}

func TestFormatOfVersion1NeverChanges(t *testing.T) {
	got := sampleFile(t)
	golden := filepath.Join("testdata", "v1.journal")
	if *update {
		must(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Fatal("journals written now differ from the golden file of version 1")
	}
	h, err := decodeHeader(want)
	if err != nil || h != (header{testID, testRing, 2, Position{0, 2 << runShift}}) {
		t.Fatalf("the golden file's header is %+v, %v", h, err)
	}
	r, err := decodeHead(want[ringOffset:], testID.seed())
	r.Data = want[ringOffset+unit : ringOffset+unit+2*chunk.BlockSize]
	if err != nil || !same(r, sample(1, 2)) || !r.verify() || r.Seq != 2<<runShift {
		t.Fatalf("the golden file's first record is %+v, %v", r, err)
	}
	r, err = decodeHead(want[ringOffset+unit+2*chunk.BlockSize:], testID.seed())
	if err != nil || !same(r, sample(2, 0)) || r.Synced != 2<<runShift+1 {
		t.Fatalf("the golden file's second record is %+v, %v", r, err)
	}
}

func TestDamagedBytesAreRefused(t *testing.T) {
	head := header{id: testID, size: testRing, generation: 3, start: Position{512, 1 << runShift}}.encode()
	for bit := range len(head) * 8 {
		head[bit/8] ^= 1 << (bit % 8)
		if _, err := decodeHeader(head); !errors.Is(err, ErrFormat) {
			t.Fatalf("a header with bit %d flipped: %v", bit, err)
		}
		head[bit/8] ^= 1 << (bit % 8)
	}
	r := sample(1, 2)
	p := make([]byte, r.length())
	r.encode(p, testID.seed())
	for bit := range unit * 8 {
		p[bit/8] ^= 1 << (bit % 8)
		if _, err := decodeHead(p, testID.seed()); !errors.Is(err, ErrFormat) {
			t.Fatalf("a record with bit %d flipped: %v", bit, err)
		}
		p[bit/8] ^= 1 << (bit % 8)
	}
	if _, err := decodeHead(p, ID{}.seed()); !errors.Is(err, ErrFormat) {
		t.Fatalf("another journal's record: %v", err)
	}
	r.Data = append([]byte{1}, r.Data[1:]...)
	if r.verify() {
		t.Error("damaged data match their sums")
	}
}

func FuzzHeader(f *testing.F) {
	f.Add(header{id: testID, size: testRing, generation: 3, start: Position{512, 1 << runShift}}.encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := decodeHeader(p)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("unmarked error %v", err)
			}
			return
		}
		if !bytes.Equal(h.encode(), p[:page]) {
			t.Fatal("a header that decodes is not what encoding gives")
		}
	})
}

// hasOldSum tells whether one of a record's sums is 2.
func hasOldSum(p []byte, sums int) bool {
	codes := make([]uint32, sums)
	chunk.DecodeCodes(codes, p[recordFixed:])
	return slices.Contains(codes, oldSum)
}

func TestLostBlocksAreRecorded(t *testing.T) {
	r := Record{ID: chunk.ID{File: 1}, Layer: 2, First: 3, Blocks: 4, Code: chunk.Lost}
	p := make([]byte, r.length())
	r.encode(p, testID.seed())
	if p[48] != 3 || p[49]|p[50]|p[51] != 0 {
		t.Errorf("the code in the record is % x", p[48:52])
	}
	if got, err := decodeHead(p, testID.seed()); err != nil || !same(got, r) || got.Sums != nil {
		t.Errorf("%+v, %v", got, err)
	}
}

// A journal of the time before there was chunk.Lost may have blocks with the sum 2.
func TestOldSumIsTheLeastNow(t *testing.T) {
	r := sample(1, 2)
	r.Sums[1] = oldSum
	p := make([]byte, r.length())
	r.encode(p, testID.seed())
	if got, err := decodeHead(p, testID.seed()); err != nil || got.Sums[0] != r.Sums[0] || got.Sums[1] != chunk.LeastSum {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzRecord(f *testing.F) {
	for n := range 3 {
		r := sample(n, n)
		p := make([]byte, r.length())
		r.encode(p, testID.seed())
		f.Add(p)
	}
	r := Record{Blocks: 3, Code: chunk.Lost}
	p := make([]byte, r.length())
	r.encode(p, testID.seed())
	f.Add(p)
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) >= recordFixed { // let the fuzzer get behind the checksum
			if _, sums, err := decodeFixed(p); err == nil && len(p) >= headLength(sums) {
				sum := headSum(testID.seed(), p, sums)
				p[4], p[5], p[6], p[7] = byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)
			}
		}
		r, err := decodeHead(p, testID.seed())
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("unmarked error %v", err)
			}
			return
		}
		again := make([]byte, headLength(len(r.Sums)))
		r.encode(again, testID.seed())
		if hasOldSum(p, len(r.Sums)) {
			return
		}
		if !bytes.Equal(again, p[:len(again)]) {
			t.Fatal("a record that decodes is not what encoding gives")
		}
	})
}
