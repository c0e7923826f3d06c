package target

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/blockstore/block"
	"pstorage/meta/metapb"
	"pstorage/target/nbd"
)

// chosen is a cluster with exports on record.
type chosen struct {
	*cluster
	exports []*metapb.Export
	mute    error
}

func (c *chosen) ListExports(context.Context, *metapb.ListExportsRequest, ...grpc.CallOption) (*metapb.ListExportsReply, error) {
	if c.mute != nil {
		return nil, c.mute
	}
	return &metapb.ListExportsReply{Exports: c.exports}, nil
}

func newChosen(exports ...*metapb.Export) (*chosen, *Exports) {
	c := &chosen{cluster: newCluster("/a", "/b", "/d/", "/d/e", "/z@s"), exports: exports}
	v, _ := withSnapshots(c.cluster)
	v.meta = c
	return c, &Exports{Volumes: v, Host: "id-1", HostName: "one"}
}

// from is the context of a call for a client.
func from(address, certificate string) context.Context {
	c := nbd.Client{Certificate: certificate}
	if address != "" {
		c.Address = netip.MustParseAddr(address)
	}
	return nbd.WithClient(context.Background(), c)
}

func (x *Exports) names(t *testing.T, ctx context.Context) string {
	t.Helper()
	all, err := x.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names(all), " ")
}

// opens tells whether the client gets the export, by every way to ask for it alike, and with which rights.
func (x *Exports) opens(t *testing.T, ctx context.Context, name string) (volume bool, readOnly bool) {
	t.Helper()
	info, err := x.Lookup(ctx, name)
	d, opened, openErr := x.Open(ctx, name)
	if openErr == nil {
		_ = d.Close()
	}
	if (err == nil) != (openErr == nil) || err != nil && (!errors.Is(err, block.ErrNotFound) || !errors.Is(openErr, block.ErrNotFound)) || info != opened || err == nil && info.Name != name {
		t.Errorf("%s: %+v, %v; opened: %+v, %v", name, info, err, opened, openErr)
	}
	return err == nil, info.ReadOnly
}

func TestWithoutExportsOnRecordEverythingIsServed(t *testing.T) {
	_, x := newChosen()
	local := from("", "")
	if got := x.names(t, local); got != "a b d/e z@s" {
		t.Error(got)
	}
	for name, want := range map[string]bool{"a": true, "d/e": true, "a@s": true, "z@s": true, "none": false, "a@none": false, "d": false} {
		if is, _ := x.opens(t, local, name); is != want {
			t.Errorf("%s: %v", name, is)
		}
	}
	if x.Only = true; x.names(t, local) != "" {
		t.Error("served: ", x.names(t, local))
	}
	if is, _ := x.opens(t, local, "a"); is {
		t.Error("a is served although it is not exported")
	}
}

func TestExportsAreServedAsTheyAreOnRecord(t *testing.T) {
	_, x := newChosen(&metapb.Export{Name: "a", Path: "/a", ReadOnly: true}, &metapb.Export{Name: "other", Path: "/d/e"}, &metapb.Export{Name: "frozen", Path: "/b", Snapshot: "s"},
		&metapb.Export{Name: "lost", Path: "/gone"})
	local := from("", "")
	if got := x.names(t, local); got != "a b frozen other z@s" {
		t.Error(got)
	}
	type served struct{ is, readOnly bool }
	for name, want := range map[string]served{"a": {true, true}, "a@s": {true, true}, "other": {true, false}, "other@s": {true, true}, "frozen": {true, true}, "b": {true, false},
		"b@s": {true, true}, "d/e": {}, "d/e@s": {}, "d/e@" + testUUID: {}, "lost": {}, "frozen@s": {}, "other@none": {}, "./d/e": {}, "d//e@s": {}} {
		if is, ro := x.opens(t, local, name); (served{is, ro}) != want {
			t.Errorf("%s: served %v, read-only %v, want %v", name, is, ro, want)
		}
	}
	if x.Only = true; x.names(t, local) != "a frozen other" {
		t.Error("served: ", x.names(t, local))
	}
	if is, _ := x.opens(t, local, "b"); is {
		t.Error("b is served although only a snapshot of it is exported")
	}
}

func TestExportsAreForWhomTheyAreMade(t *testing.T) {
	contexts := map[string]context.Context{"socket": from("", ""), "10.0.0.5": from("10.0.0.5", ""), "10.0.1.5": from("10.0.1.5", ""), "fe80::1": from("fe80::1%eth0", ""),
		"guest": from("192.0.2.1", "guest"), "nobody": context.Background()}
	for who, want := range map[string]string{
		"": "10.0.0.5 10.0.1.5 fe80::1 guest nobody socket", "unix": "socket", "10.0.0.5": "10.0.0.5", "::ffff:10.0.0.5": "10.0.0.5", "10.0.0.0/24": "10.0.0.5",
		"10.0.0.7/8": "10.0.0.5 10.0.1.5", "fe80::/64": "fe80::1", "fe80::1": "fe80::1", "cert:guest": "guest", "cert:": "", "cert:other": "", "guest": "",
		"10.0.1.5,unix": "10.0.1.5 socket",
	} {
		e := &metapb.Export{Name: "a", Path: "/a"}
		if who != "" {
			e.Clients = strings.Split(who, ",")
		}
		_, x := newChosen(e)
		var got []string
		for client, ctx := range contexts {
			is, _ := x.opens(t, ctx, "a")
			if snapshot, _ := x.opens(t, ctx, "a@s"); snapshot != is || slices.Contains(strings.Fields(x.names(t, ctx)), "a") != is {
				t.Errorf("%s: %s gets the volume: %v, its snapshot: %v, listed: %s", who, client, is, snapshot, x.names(t, ctx))
			}
			if is {
				got = append(got, client)
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != want {
			t.Errorf("%q: for %q, want %q", who, got, want)
		}
	}
}

func TestExportsAreServedOnTheirHosts(t *testing.T) {
	for hosts, want := range map[string]bool{"": true, "one": true, "two,id-1": true, "two": false, "id-2": false} {
		e := &metapb.Export{Name: "a", Path: "/a"}
		if hosts != "" {
			e.Hosts = strings.Split(hosts, ",")
		}
		_, x := newChosen(e)
		if is, _ := x.opens(t, from("", ""), "a"); is != want {
			t.Errorf("on %q: %v", hosts, is)
		}
	}
}

// Who cannot ask what is exported opens nothing; metadata servers of a version without exports have none.
func TestNothingIsOpenedUnlessItIsKnownToBeExported(t *testing.T) {
	c, x := newChosen()
	c.mute = status.Error(codes.Unavailable, "no leader")
	local := from("", "")
	_, listErr := x.List(local)
	_, lookupErr := x.Lookup(local, "a")
	_, _, openErr := x.Open(local, "a")
	_, olderErr := x.Older(local, "a@s")
	_, sinceErr := x.Since(local, "a@s", "r")
	for i, err := range []error{listErr, lookupErr, openErr, olderErr, sinceErr} {
		if !errors.Is(err, ErrNotNow) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	c.mute = status.Error(codes.Unimplemented, "unknown method")
	if is, _ := x.opens(t, local, "a"); !is || x.names(t, local) != "a b d/e z@s" {
		t.Errorf("of metadata servers that know no exports: %v, %s", is, x.names(t, local))
	}
	x.Only = true
	if is, _ := x.opens(t, local, "a"); is {
		t.Error("served without being exported")
	}
}
