package reservations

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"pstorage/target/scsi"
)

var update = flag.Bool("update", false, "write the golden file")

// sample has something in every field.
func sample() scsi.ReservationState {
	return scsi.ReservationState{
		Generation: 0x01020304, Holder: "iqn.2014-04.com.example:a,i,0x800000000001", HolderPort: 2, Type: 5, Persist: true,
		Registrations: []scsi.Registration{
			{Initiator: "iqn.2014-04.com.example:a,i,0x800000000001", Port: 2, Key: 0x1122334455667788},
			{Initiator: "iqn.2014-04.com.example:b,i,0x800000000002", Port: 1, Key: 9},
		},
	}
}

// sanitized is the same with a SANITIZE operation.
func sanitized() scsi.ReservationState {
	s := sample()
	s.Sanitize = scsi.Sanitization{Action: 1, Unrestricted: true, Failed: true, Invert: true, Passes: 3, Pass: 2, Done: 0x0102030405, Pattern: []byte{7, 8, 9}}
	return s
}

// What is kept is read by every later version.
func TestFormatIsPinned(t *testing.T) {
	pinned(t, sample(), "testdata/state.golden")
	pinned(t, sanitized(), "testdata/sanitize.golden")
}

func pinned(t *testing.T, s scsi.ReservationState, golden string) {
	have, err := encode(&s)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(golden, []byte(hex.Dump(have)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if hex.Dump(have) != string(want) {
		t.Errorf("the format has changed:\n%s, want\n%s", hex.Dump(have), want)
	}
}

func drawState(t *rapid.T) (s scsi.ReservationState) {
	port := func(name string) string {
		return string(rapid.SliceOfN(rapid.Byte(), 0, maxPort).Draw(t, name))
	}
	s.Generation, s.Type, s.Persist = rapid.Uint32().Draw(t, "generation"), rapid.Byte().Draw(t, "type"), rapid.Bool().Draw(t, "persist")
	s.Holder, s.HolderPort = port("holder"), rapid.Uint16().Draw(t, "holder's port")
	for range rapid.IntRange(0, 5).Draw(t, "registrations") {
		s.Registrations = append(s.Registrations, scsi.Registration{Initiator: port("initiator"), Port: rapid.Uint16().Draw(t, "port"), Key: rapid.Uint64().Draw(t, "key")})
	}
	if rapid.Bool().Draw(t, "sanitizing") {
		s.Sanitize = scsi.Sanitization{
			Action: 1, Unrestricted: rapid.Bool().Draw(t, "unrestricted"), Failed: rapid.Bool().Draw(t, "failed"), Invert: rapid.Bool().Draw(t, "invert"),
			Passes: rapid.ByteRange(1, 31).Draw(t, "passes"), Done: rapid.Int64Min(0).Draw(t, "done"),
			Pattern: rapid.SliceOfN(rapid.Byte(), 1, 4096).Draw(t, "pattern"),
		}
	}
	return s
}

func TestWhatIsSavedIsLoaded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawState(t)
		b, err := encode(&s)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := decode(b); err != nil || !reflect.DeepEqual(back, s) {
			t.Fatalf("%+v became %+v, %v", s, back, err)
		}
		cut := rapid.IntRange(1, len(b)-1).Draw(t, "cut")
		if _, err := decode(b[:cut]); err == nil {
			t.Fatalf("%d of %d bytes were read", cut, len(b))
		}
	})
}

func TestWhatDoesNotFitIsNotSaved(t *testing.T) {
	for name, s := range map[string]scsi.ReservationState{
		"long name":     {Holder: strings.Repeat("x", maxPort+1)},
		"long name too": {Registrations: []scsi.Registration{{Initiator: strings.Repeat("x", maxPort+1)}}},
		"long pattern":  {Sanitize: scsi.Sanitization{Action: 1, Passes: 1, Pattern: make([]byte, 4097)}},
		"too many":      {Registrations: make([]scsi.Registration, maxRegistrations+1)},
	} {
		if _, err := encode(&s); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, s := range []scsi.ReservationState{sample(), sanitized()} {
		b, _ := encode(&s)
		f.Add(b)
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decode(b)
		if err != nil {
			return
		}
		again, err := encode(&s)
		if err != nil || len(b) > 0 && !bytes.Equal(again, b) {
			t.Fatalf("%x became %x, %v", b, again, err)
		}
	})
}
