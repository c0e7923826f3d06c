package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/meta/metapb"
	"pstorage/meta/targetpb"
)

var update = flag.Bool("update", false, "write the golden files anew")

// fakeMeta is a namespace in memory.
type fakeMeta struct {
	metapb.MetaClient
	files map[string]*metapb.FileInfo
	err   error

	servers []*metapb.Server
	removed []metapb.RemoveServersRequest_Action
	snaps   fakeSnapshots
	exports []*metapb.Export
	looked  func(*metapb.FileInfo) // called before each answer to Lookup
}

// RemoveServers drops what is not active at once, and the rest by the next Status.
func (f *fakeMeta) RemoveServers(_ context.Context, r *metapb.RemoveServersRequest, _ ...grpc.CallOption) (*metapb.RemoveServersReply, error) {
	out := &metapb.RemoveServersReply{}
	f.removed = append(f.removed, r.Action)
	for _, id := range r.Ids {
		i := slices.IndexFunc(f.servers, func(s *metapb.Server) bool { return s.Id == id })
		if i < 0 {
			return nil, status.Error(codes.NotFound, "chunk server 7: no such chunk server")
		}
		out.Servers = append(out.Servers, &metapb.Removal{Id: id, Replicas: 40, Degraded: 39, Lost: 1, State: f.servers[i].State})
		f.servers[i].Releasing = r.Action == metapb.RemoveServersRequest_RELEASE
	}
	return out, f.err
}

func newFakeMeta() *fakeMeta {
	return &fakeMeta{files: map[string]*metapb.FileInfo{}, snaps: fakeSnapshots{held: map[string]bool{}}}
}

func (f *fakeMeta) Close() error { return nil }

func (f *fakeMeta) Create(_ context.Context, r *metapb.CreateRequest, _ ...grpc.CallOption) (*metapb.FileInfo, error) {
	if f.files[r.Path] != nil {
		return nil, status.Error(codes.AlreadyExists, "exists")
	}
	effective := &metapb.Attributes{ReplicasNorm: 3, ReplicasMin: 2, FailureDomain: "host", ChunkSize: 64 << 20}
	merge(effective, r.Attributes)
	f.files[r.Path] = &metapb.FileInfo{Path: r.Path, Id: uint64(len(f.files) + 1), Size: r.Size, Directory: r.Directory, Own: r.Attributes, Effective: effective, Clean: true}
	return f.files[r.Path], f.err
}

func merge(into, from *metapb.Attributes) {
	if from.GetReplicasNorm() != 0 {
		into.ReplicasNorm, into.ReplicasMin = from.ReplicasNorm, from.ReplicasMin
	}
	if from.GetFailureDomain() != "" {
		into.FailureDomain = from.FailureDomain
	}
	if from.GetChunkSize() != 0 {
		into.ChunkSize = from.ChunkSize
	}
	if from.GetTier() != 0 {
		into.Tier = from.Tier
	}
}

func (f *fakeMeta) find(path string) (*metapb.FileInfo, error) {
	if f.err != nil {
		return nil, f.err
	}
	if file := f.files[path]; file != nil {
		return file, nil
	}
	return nil, status.Error(codes.NotFound, path)
}

func (f *fakeMeta) Lookup(_ context.Context, r *metapb.LookupRequest, _ ...grpc.CallOption) (*metapb.FileInfo, error) {
	file, err := f.find(r.Path)
	if err == nil && f.looked != nil {
		f.looked(file)
	}
	return file, err
}

func (f *fakeMeta) Remove(_ context.Context, r *metapb.RemoveRequest, _ ...grpc.CallOption) (*metapb.RemoveReply, error) {
	file, err := f.find(r.Path)
	if err != nil {
		return nil, err
	}
	if file.Holder != "" && !r.Force {
		return nil, status.Error(codes.FailedPrecondition, "a client has it open")
	}
	delete(f.files, r.Path)
	return &metapb.RemoveReply{}, nil
}

func (f *fakeMeta) Resize(_ context.Context, r *metapb.ResizeRequest, _ ...grpc.CallOption) (*metapb.FileInfo, error) {
	file, err := f.find(r.Path)
	if err != nil {
		return nil, err
	}
	file.Size = r.Size
	return file, nil
}

func (f *fakeMeta) SetAttributes(_ context.Context, r *metapb.SetAttributesRequest, _ ...grpc.CallOption) (*metapb.FileInfo, error) {
	file, err := f.find(r.Path)
	if err != nil {
		return nil, err
	}
	merge(file.Effective, r.Attributes)
	return file, nil
}

func (f *fakeMeta) List(context.Context, *metapb.ListRequest, ...grpc.CallOption) (*metapb.ListReply, error) {
	reply := &metapb.ListReply{}
	for _, file := range f.files {
		reply.Files = append(reply.Files, file)
	}
	sort.Slice(reply.Files, func(i, j int) bool { return reply.Files[i].Path < reply.Files[j].Path })
	return reply, f.err
}

func (f *fakeMeta) Status(context.Context, *metapb.StatusRequest, ...grpc.CallOption) (*metapb.StatusReply, error) {
	out := &metapb.StatusReply{Cluster: "pcs1", Files: uint64(len(f.files))}
	for _, s := range f.servers {
		if s.Releasing {
			s.State, s.Releasing = metapb.Server_DROPPED, false
		}
		out.Servers = append(out.Servers, s)
	}
	return out, f.err
}

func (f *fakeMeta) SetConfig(_ context.Context, r *metapb.SetConfigRequest, _ ...grpc.CallOption) (*metapb.SetConfigReply, error) {
	out := map[string]string{"mds.wd.offline_tout": "5min", "mds.alloc.fill_margin": "5"}
	for name, value := range r.Set {
		if _, known := out[name]; !known {
			return nil, status.Error(codes.InvalidArgument, name+": no such parameter")
		}
		out[name] = value
	}
	return &metapb.SetConfigReply{Config: out}, f.err
}

// session runs command lines one after another against one fake cluster.
type session struct {
	t       *testing.T
	meta    *fakeMeta
	targets *fakeTargets
	root    string
	tty     bool
}

type result struct {
	code     int
	out, err string
}

// record adds a command line and what came of it, as a terminal shows it.
func (r result) record(transcript *strings.Builder, line string) {
	fmt.Fprintf(transcript, "$ %s\n%s%s", line, r.out, r.err)
	if r.code != 0 {
		fmt.Fprintf(transcript, "[exit %d]\n", r.code)
	}
}

func newSession(t *testing.T) *session {
	return &session{t: t, meta: newFakeMeta(), targets: newFakeTargets(), root: t.TempDir()}
}

func (s *session) run(input string, args ...string) result {
	s.t.Helper()
	var out, errs bytes.Buffer
	passwords := strings.Split(input, "\n")
	a := &app{
		in: strings.NewReader(input), out: &out, err: &errs, interactive: s.tty,
		env: func(name string) string {
			return map[string]string{"PSTORAGE_ROOT": s.root, "HOME": s.root}[name]
		},
		readPassword: func() ([]byte, error) {
			if len(passwords) == 0 {
				return nil, io.EOF
			}
			next := passwords[0]
			passwords = passwords[1:]
			return []byte(next), nil
		},
		connect:        func(*app) (metapb.MetaClient, io.Closer, error) { return s.meta, s.meta, nil },
		connectTargets: func(*app) (targetpb.TargetsClient, io.Closer, error) { return s.targets, s.meta, nil },
		hold:           s.meta.hold,
	}
	code := a.run(context.Background(), args)
	return result{code, out.String(), errs.String()}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (go test -update writes it anew).\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}
