package leader_test

import (
	"context"
	"testing"

	"google.golang.org/grpc/codes"

	"pstorage/meta/metapb"
	"pstorage/meta/metatest"
)

func TestQuotasAreToldAndKept(t *testing.T) {
	play(t, 0, func(t *testing.T, c *metatest.Cluster, _ []*metatest.Server) {
		ctx, l := context.Background(), c.Leader()
		create := func(path string, directory bool, size uint64, want codes.Code) {
			t.Helper()
			_, err := l.Create(ctx, &metapb.CreateRequest{Path: path, Directory: directory, Size: size})
			wantCode(t, err, want)
		}
		create("/q", true, 0, codes.OK)
		set, err := l.SetQuota(ctx, &metapb.SetQuotaRequest{Path: "/q", Limit: 4096})
		wantCode(t, err, codes.OK)
		if len(set.Quotas) != 1 || set.Quotas[0].Limit != 4096 {
			t.Errorf("set: %v", set)
		}
		create("/q/v", false, 8192, codes.FailedPrecondition)
		create("/q/v", false, 4096, codes.OK)
		f, err := l.Lookup(ctx, &metapb.LookupRequest{Path: "/q/v"})
		wantCode(t, err, codes.OK)
		if len(f.Quotas) != 1 || f.Quotas[0].Path != "/q" || f.Quotas[0].Used != 4096 {
			t.Errorf("told: %v", f)
		}
		_, err = l.Resize(ctx, &metapb.ResizeRequest{Path: "/q/v", Size: 8192})
		wantCode(t, err, codes.FailedPrecondition)
		_, err = l.SetQuota(ctx, &metapb.SetQuotaRequest{Path: "/q/v", Limit: 4096})
		wantCode(t, err, codes.InvalidArgument)
		_, err = l.SetQuota(ctx, &metapb.SetQuotaRequest{Path: "/q"})
		wantCode(t, err, codes.OK)
		create("/q/w", false, 8192, codes.OK)
	})
}
