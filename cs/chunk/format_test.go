package chunk

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "write the golden files anew")

var sample = Header{ID: ID{File: 0x1122334455667788, Index: 0x99aabbcc}, Layer: 7, Blocks: MinBlocks}

// sampleFile is a whole file: header, table with one code of each kind, data of one block.
func sampleFile() []byte {
	file := make([]byte, FileSize(sample.Blocks))
	sample.Encode(file)
	block := bytes.Repeat([]byte("pstorage"), BlockSize/8)
	copy(file[DataOffset(sample.Blocks, 2):], block)
	EncodeCodes(file[CodeOffset(0):], []uint32{Absent, Zeros, BlockSum(sample.ID, 2, block)})
	return file
}

// lossyFile is the same of version 2, with a block that is lost.
func lossyFile() []byte {
	file, h := sampleFile(), sample
	h.Lossy = true
	h.Encode(file)
	EncodeCodes(file[CodeOffset(3):], []uint32{Lost})
	return file
}

func TestFormatsNeverChange(t *testing.T) {
	for _, f := range []struct {
		name  string
		file  []byte
		lossy bool
		last  uint32
	}{{"v1.chunk", sampleFile(), false, Absent}, {"v2.chunk", lossyFile(), true, Lost}} {
		t.Run(f.name, func(t *testing.T) { checkGolden(t, f.name, f.file[:DataOffset(sample.Blocks, 3)], f.lossy, f.last) })
	}
}

func checkGolden(t *testing.T, name string, got []byte, lossy bool, last uint32) {
	golden := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("files written now differ from the golden file")
	}
	h, err := DecodeHeader(want)
	expect := sample
	expect.Lossy = lossy
	if err != nil || h != expect {
		t.Fatalf("the golden file decodes to %+v, %v", h, err)
	}
	var codes [4]uint32
	h.DecodeCodes(codes[:], want[CodeOffset(0):])
	if codes[3] != last || codes[0] != Absent || codes[1] != Zeros || !Verify(sample.ID, 2, codes[2], want[DataOffset(sample.Blocks, 2):]) {
		t.Fatalf("the golden file's codes are %x", codes)
	}
}

func TestHeaderSurvivesEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := Header{
			ID:     ID{File: rapid.Uint64().Draw(t, "file"), Index: rapid.Uint32().Draw(t, "index")},
			Layer:  rapid.Uint32().Draw(t, "layer"),
			Blocks: MinBlocks << rapid.IntRange(0, 8).Draw(t, "size"),
			Lossy:  rapid.Bool().Draw(t, "lossy"),
		}
		p := make([]byte, HeaderSize)
		h.Encode(p)
		if got, err := DecodeHeader(p); err != nil || got != h {
			t.Fatalf("%+v became %+v, %v", h, got, err)
		}
	})
}

func TestDamagedHeaderIsRefused(t *testing.T) {
	p := make([]byte, HeaderSize)
	for bit := range HeaderSize * 8 {
		sample.Encode(p)
		p[bit/8] ^= 1 << (bit % 8)
		if _, err := DecodeHeader(p); !errors.Is(err, ErrFormat) {
			t.Fatalf("a header with bit %d flipped: %v", bit, err)
		}
	}
}

func TestMisdirectedBlockDoesNotVerify(t *testing.T) {
	data := bytes.Repeat([]byte{0xa5}, BlockSize)
	id := ID{File: 5, Index: 6}
	sum := BlockSum(id, 7, data)
	switch {
	case !Verify(id, 7, sum, data):
		t.Error("a block in its place does not verify")
	case Verify(id, 8, sum, data), Verify(ID{5, 7}, 7, sum, data), Verify(ID{6, 6}, 7, sum, data):
		t.Error("a block verifies in another's place")
	}
}

func TestSumIsNeverACode(t *testing.T) {
	// The CRC is linear: from any seed, four bytes can be chosen to give any sum.
	for _, want := range []uint32{Absent, Zeros, Lost, LeastSum, LeastSum + 1} {
		data := append(make([]byte, BlockSize-4), forge(seed(ID{1, 2}, 3), BlockSize-4, want)...)
		got := BlockSum(ID{1, 2}, 3, data)
		if expect := max(want, LeastSum); got != expect {
			t.Errorf("a sum that computes to %d is %d, want %d", want, got, expect)
		}
	}
}

// Before there was Lost, a sum could be 2: in a file of that time it stands for the data that have the least sum now.
func TestOldSumIsNoLoss(t *testing.T) {
	raw := EncodeCodes(make([]byte, 16), []uint32{Absent, Zeros, 2, LeastSum})
	for lossy, want := range map[bool]uint32{false: LeastSum, true: Lost} {
		var codes [4]uint32
		Header{Lossy: lossy}.DecodeCodes(codes[:], raw)
		if codes != [4]uint32{Absent, Zeros, want, LeastSum} {
			t.Errorf("lossy %t: codes %v", lossy, codes)
		}
	}
	for _, sum := range []uint32{0, 1, 2} {
		data := append(make([]byte, BlockSize-4), forge(seed(ID{1, 2}, 3), BlockSize-4, sum)...)
		if !Verify(ID{1, 2}, 3, LeastSum, data) || HasData(Lost) {
			t.Errorf("data whose sum computes to %d do not verify", sum)
		}
	}
}

func FuzzDecodeHeader(f *testing.F) {
	p := make([]byte, HeaderSize)
	sample.Encode(p)
	f.Add(p)
	f.Add(p[:40])
	f.Add(lossyFile()[:HeaderSize])
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := DecodeHeader(p)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("unmarked error %v", err)
			}
			return
		}
		again := make([]byte, HeaderSize)
		h.Encode(again)
		if !bytes.Equal(again, p[:HeaderSize]) {
			t.Fatal("a header that decodes is not what encoding gives")
		}
	})
}

func FuzzCodes(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, p []byte) {
		p = p[:len(p)/CodeSize*CodeSize]
		codes := make([]uint32, len(p)/CodeSize)
		DecodeCodes(codes, p)
		if got := EncodeCodes(make([]byte, len(p)), codes); !bytes.Equal(got, p) {
			t.Fatalf("%x became %x", p, got)
		}
	})
}
