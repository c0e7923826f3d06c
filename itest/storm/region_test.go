package storm

import (
	"strings"
	"testing"
)

func TestRegionNoticesWhatWasNotWrittenThere(t *testing.T) {
	r := newRegion(1, 100, 8, 7)
	one, two, three := r.next(), r.next(), r.next()
	r.acknowledged(0, 4, one)
	r.unsure(2, 2, two)
	for _, c := range []struct {
		name string
		at   int
		data []byte
		want string // empty: is in order
	}{
		{"acknowledged", 0, r.content(0, 2, one), ""},
		{"lost", 0, r.content(0, 1, 0), "must be 1"},
		{"of elsewhere", 1, r.content(0, 1, one), "bytes of nobody"},
		{"torn inside of a sector", 0, append(r.content(0, 1, one)[:256], r.content(0, 1, two)[256:]...), "bytes of nobody"},
		{"never sent", 0, r.content(0, 1, three), "version 3"},
		{"aborted, there in part", 2, append(r.content(2, 1, two), r.content(3, 1, one)...), ""},
		{"gone again after it was read", 2, r.content(2, 1, one), "must be 2"},
		{"come after it was read to be absent", 3, r.content(3, 1, two), "must be 1"},
		{"never written", 4, r.content(4, 4, 0), ""},
	} {
		err := r.check(c.at, c.data)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", c.name, err, c.want)
		}
	}
}
