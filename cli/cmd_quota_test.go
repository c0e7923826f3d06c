package main

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/metapb"
)

// SetQuota keeps what it is told; 4 GiB are used.
func (f *fakeMeta) SetQuota(_ context.Context, r *metapb.SetQuotaRequest, _ ...grpc.CallOption) (*metapb.FileInfo, error) {
	file, err := f.find(r.Path)
	if err != nil {
		return nil, err
	}
	if !file.Directory {
		return nil, status.Error(codes.InvalidArgument, r.Path+" is no folder: invalid")
	}
	if file.Quotas = nil; r.Limit > 0 {
		file.Quotas = []*metapb.Quota{{Path: r.Path, Limit: r.Limit, Used: 4 << 30}, {Path: "/", Limit: 1 << 40, Used: 6 << 30}}
	}
	return file, nil
}

func TestQuotasInTheTerminal(t *testing.T) {
	s := newSession(t)
	s.run("", "mkdir", "logs")
	s.run("", "create", "demo", "-s", "1G")
	var transcript strings.Builder
	for _, line := range []string{
		"quota logs",
		"quota logs 10G",
		"quota logs/",
		"get-attr logs",
		"quota logs 2G",
		"quota logs --json",
		"quota logs none",
		"quota logs none --json",
		"quota logs 0",
		"quota logs much",
		"quota demo 1G",
		"quota nowhere 1G",
		"quota",
		"quota logs 1G 2G",
	} {
		s.run("", strings.Fields(line)...).record(&transcript, "pstorage "+line)
	}
	golden(t, "quota.txt", transcript.String())
}

// Whose quota it is, and what there is, the metadata servers tell.
func TestWhatAQuotaRefusesSaysSo(t *testing.T) {
	s := newSession(t)
	s.run("", "create", "demo", "-s", "1G")
	s.meta.err = status.Error(codes.FailedPrecondition, "/demo: over quota: folder / may hold ...")
	if r := s.run("", "resize", "demo", "-s", "2G"); r.code != exitRefused || !strings.Contains(r.err, "over quota: folder /") {
		t.Errorf("exit %d: %s%s", r.code, r.out, r.err)
	}
}
