package print

import (
	"strings"
	"testing"
)

func TestWhatIsNotKnownOfUsageIsNotTold(t *testing.T) {
	known := Usage{Snapshot: Snapshot{Name: "a", Size: 10 << 30}, Data: 1 << 20}
	known.Count(4096, 3)
	var out strings.Builder
	if err := UsageTable(&out, []Usage{known, {Snapshot: Snapshot{UUID: "u"}}}); err != nil {
		t.Fatal(err)
	}
	want := "SNAPSHOT SIZE DATA WRITTEN SPACE\na        10GB  1MB     4KB  12KB\nu          0B   0B       -     -\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}
