package main

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/metapb"
)

func (f *fakeMeta) exportAt(name string) int {
	return slices.IndexFunc(f.exports, func(e *metapb.Export) bool { return e.Name == name })
}

func (f *fakeMeta) SetExport(_ context.Context, r *metapb.SetExportRequest, _ ...grpc.CallOption) (*metapb.Export, error) {
	switch i := f.exportAt(r.Export.Name); {
	case slices.Contains(r.Export.Clients, "everybody"):
		return nil, status.Error(codes.InvalidArgument, `client "everybody": must be another`)
	case i < 0:
		f.exports = append(f.exports, r.Export)
	case f.exports[i].Path != r.Export.Path || f.exports[i].Snapshot != r.Export.Snapshot:
		return nil, status.Errorf(codes.AlreadyExists, "export %s, of %s: already exists", r.Export.Name, f.exports[i].Path)
	default:
		f.exports[i] = r.Export
	}
	return r.Export, f.err
}

func (f *fakeMeta) DeleteExport(_ context.Context, r *metapb.DeleteExportRequest, _ ...grpc.CallOption) (*metapb.DeleteExportReply, error) {
	i := f.exportAt(r.Name)
	if i < 0 {
		return nil, status.Errorf(codes.NotFound, "%s: no such export", r.Name)
	}
	f.exports = slices.Delete(f.exports, i, i+1)
	return &metapb.DeleteExportReply{}, f.err
}

func (f *fakeMeta) ListExports(context.Context, *metapb.ListExportsRequest, ...grpc.CallOption) (*metapb.ListExportsReply, error) {
	slices.SortFunc(f.exports, func(a, b *metapb.Export) int { return strings.Compare(a.Name, b.Name) })
	return &metapb.ListExportsReply{Exports: f.exports}, f.err
}
