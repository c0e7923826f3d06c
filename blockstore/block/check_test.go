package block

import (
	"errors"
	"math"
	"testing"
)

func TestCheckRefusesWhatNoDeviceCouldServe(t *testing.T) {
	const size = 1 << 20
	data := make([]byte, MaxTransfer+512)
	for _, c := range []struct {
		name string
		r    Request
		want error
	}{
		{"unknown operation", Request{Op: 99}, ErrInvalid},
		{"no operation", Request{}, ErrInvalid},
		{"negative offset", Request{Op: Read, Offset: -512, Length: 512, Data: data[:512]}, ErrInvalid},
		{"negative length", Request{Op: Discard, Length: -512}, ErrInvalid},
		{"unaligned offset", Request{Op: Read, Offset: 1, Length: 512, Data: data[:512]}, ErrInvalid},
		{"unaligned length", Request{Op: WriteZeroes, Length: 100}, ErrInvalid},
		{"short buffer", Request{Op: Write, Length: 1024, Data: data[:512]}, ErrInvalid},
		{"too long", Request{Op: Write, Length: int64(len(data)), Data: data}, ErrInvalid},
		{"short comparison", Request{Op: CompareAndWrite, Length: 512, Data: data[:512]}, ErrInvalid},
		{"long comparison", Request{Op: CompareAndWrite, Length: MaxCompare + 512, Data: data[:MaxCompare+512], Compare: data[:MaxCompare+512]}, ErrInvalid},
		{"past the end", Request{Op: Read, Offset: size - 512, Length: 1024, Data: data[:1024]}, ErrRange},
		{"overflow", Request{Op: Discard, Offset: math.MaxInt64 - 511, Length: math.MaxInt64 - 511}, ErrRange},
		{"longer than the device", Request{Op: Discard, Length: size + 512}, ErrRange},
		{"the last sector", Request{Op: Read, Offset: size - 512, Length: 512, Data: data[:512]}, nil},
		{"nothing", Request{Op: Read}, nil},
		{"flush, whatever its range", Request{Op: Flush, Offset: -1, Length: 7}, nil},
	} {
		if err := Check(&c.r, size); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}
