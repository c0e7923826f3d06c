package client

import (
	"bytes"
	"context"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/metapb"
)

var cloned = uuid.MustParse("a1f54314-bc06-40c6-a587-965feb9d85bb")

// Clone makes a clone of one and the same snapshot, /f@s, unless what is there already.
func (f *fake) Clone(_ context.Context, in *metapb.CloneRequest) (*metapb.FileInfo, error) {
	err := f.called()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.files[in.NewPath] == nil {
		f.files[in.NewPath] = &metapb.FileInfo{Path: in.NewPath, Own: &metapb.Attributes{ChunkSize: 1 << 20}, Over: &metapb.Over{Snapshot: cloned[:], Path: "/f", Name: "s"}}
	} else if err == nil {
		err = status.Error(codes.AlreadyExists, "already exists")
	}
	return f.files[in.NewPath], err
}

func TestACloneMadeByALostAttemptHasWorked(t *testing.T) {
	other := uuid.MustParse("9c98b442-7482-4fd0-9c45-9259374ca84e")
	for name, c := range map[string]struct {
		in   *metapb.CloneRequest
		used uint64
		want codes.Code
	}{
		"by name":          {in: &metapb.CloneRequest{Path: "/f", Snapshot: "s"}},
		"by UUID":          {in: &metapb.CloneRequest{Snapshot: cloned.String()}},
		"another name":     {in: &metapb.CloneRequest{Path: "/f", Snapshot: "t"}, want: codes.AlreadyExists},
		"another volume":   {in: &metapb.CloneRequest{Path: "/g", Snapshot: "s"}, want: codes.AlreadyExists},
		"another UUID":     {in: &metapb.CloneRequest{Snapshot: other.String()}, want: codes.AlreadyExists},
		"other attributes": {in: &metapb.CloneRequest{Path: "/f", Snapshot: "s", Attributes: &metapb.Attributes{Tier: 1}}, want: codes.AlreadyExists},
		"used since":       {in: &metapb.CloneRequest{Path: "/f", Snapshot: "s"}, used: 1, want: codes.AlreadyExists},
	} {
		t.Run(name, func(t *testing.T) {
			f := serve(t, nil)
			f.say = func(call int) error {
				if call == 1 {
					return lost()
				}
				f.files["/new"].Epoch = c.used
				return nil
			}
			m, ctx := newClient(t, f.address)
			c.in.NewPath = "/new"
			r, err := m.Clone(ctx, c.in)
			if status.Code(err) != c.want || err == nil && !bytes.Equal(r.Over.Snapshot, cloned[:]) {
				t.Errorf("%v, %v; want %v", r, err, c.want)
			}
		})
	}
}
