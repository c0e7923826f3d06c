package leader_test

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"

	"pstorage/meta/metapb"
	"pstorage/meta/metatest"
)

func TestExportsAreKept(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		ctx := context.Background()
		set := func(e *metapb.Export, want codes.Code) *metapb.Export {
			t.Helper()
			out, err := c.Leader().SetExport(ctx, &metapb.SetExportRequest{Export: e})
			wantCode(t, err, want)
			return out
		}
		for _, bad := range []string{"cert:", "everybody", "10.0.0.0/33", "10.0.0", ""} {
			set(&metapb.Export{Name: "e", Path: "/f", Clients: []string{"unix", bad}}, codes.InvalidArgument)
		}
		set(&metapb.Export{Name: "e", Path: "/none"}, codes.NotFound)
		set(nil, codes.InvalidArgument)
		made := set(&metapb.Export{Name: "e", Path: "/f", Hosts: []string{"h"}, Clients: []string{"cert:guest", "10.0.0.7", "10.0.0.0/24", "fe80::/64", "unix"}}, codes.OK)
		if made.CreatedUnix == 0 || len(made.Clients) != 5 || made.Hosts[0] != "h" {
			t.Errorf("made %v", made)
		}
		c.Lead() // another leads now
		all, err := c.Leader().ListExports(ctx, &metapb.ListExportsRequest{})
		if wantCode(t, err, codes.OK); len(all.Exports) != 1 || all.Exports[0].String() != made.String() {
			t.Errorf("listed %v", all)
		}
		set(&metapb.Export{Name: "e", Path: "/f", Snapshot: "s"}, codes.AlreadyExists)
		if _, err := c.Leader().DeleteExport(ctx, &metapb.DeleteExportRequest{Name: "e"}); err != nil {
			t.Error(err)
		}
		_, err = c.Leader().DeleteExport(ctx, &metapb.DeleteExportRequest{Name: "e"})
		wantCode(t, err, codes.NotFound)
	})
}
