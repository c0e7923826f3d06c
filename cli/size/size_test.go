package size

import (
	"testing"

	"pgregory.net/rapid"
)

func TestSizesAreBinaryMultiples(t *testing.T) {
	for text, want := range map[string]uint64{
		"0": 0, "512": 512, "4K": 4096, "512M": 512 << 20, "10G": 10 << 30, "1T": 1 << 40, "2P": 2 << 50, "1.5G": 3 << 29,
		"10g": 10 << 30, "10GB": 10 << 30, "10GiB": 10 << 30, " 1M ": 1 << 20, "64MB": 64 << 20, "7E": 7 << 60,
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("Parse(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
}

func TestWhatIsNoSizeIsRefused(t *testing.T) {
	for _, text := range []string{"", "G", "-1", "-1G", "1.5", "10X", "1e3G", "0x10", "1_0", "8E", "99999999999G", "NaNG", "infG", "1 0G", "+1.5G", "B", "iB"} {
		if got, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %d, want an error", text, got)
		}
	}
}

func TestFormatIsShort(t *testing.T) {
	for n, want := range map[uint64]string{
		0: "0B", 1023: "1023B", 1024: "1KB", 4096: "4KB", 10 << 30: "10GB", 105 << 30: "105GB", 1 << 40: "1TB", 1700 << 30: "1.7TB",
		1<<30 - 1: "1GB", 1<<64 - 1: "16EB", 1023 << 20: "1023MB",
	} {
		if got := Format(n); got != want {
			t.Errorf("Format(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestWholeUnitsSurviveFormatAndParse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := uint64(rapid.IntRange(1, 1023).Draw(t, "number")) << (10 * rapid.IntRange(0, 5).Draw(t, "unit"))
		if got, err := Parse(Format(n)); err != nil || got != n {
			t.Fatalf("Parse(Format(%d)) = %d, %v", n, got, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add("10G")
	f.Add("1.5TiB")
	f.Fuzz(func(t *testing.T, text string) {
		if n, err := Parse(text); err == nil && n > 1<<63-1 {
			t.Fatalf("Parse(%q) = %d, beyond what a file offset can be", text, n)
		}
	})
}
