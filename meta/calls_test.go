package meta

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"pstorage/meta/metapb"
)

// A call of the service that is handed to nobody answers that it is not there.
func TestEveryCallReachesTheLeader(t *testing.T) {
	c := dial(t, start(t, Config{Dir: create(t)}).ClientAddr())
	for _, m := range metapb.Meta_ServiceDesc.Methods {
		err := c.Invoke(within(t), "/"+metapb.Meta_ServiceDesc.ServiceName+"/"+m.MethodName, &emptypb.Empty{}, &emptypb.Empty{})
		if status.Code(err) == codes.Unimplemented {
			t.Errorf("%s: %v", m.MethodName, err)
		}
	}
}

// With a real log, and real streams.
func TestASnapshotIsTakenWithTheHelpOfItsHolder(t *testing.T) {
	c, ctx := dial(t, start(t, Config{Dir: create(t)}).ClientAddr()), within(t)
	if _, err := c.Create(ctx, &metapb.CreateRequest{Path: "/f", Size: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	me := &metapb.Client{Id: slices.Repeat([]byte{7}, 16), Host: "h"}
	opened, err := c.Open(ctx, &metapb.OpenRequest{Client: me, Path: "/f"})
	if err != nil {
		t.Fatal(err)
	}
	file, epoch := opened.File.Id, opened.Epoch
	if _, err := c.Settled(ctx, &metapb.SettledRequest{Client: me, File: file, Epoch: epoch}); err != nil {
		t.Fatal(err)
	}
	orders, err := c.Orders(ctx, &metapb.OrdersRequest{Client: me})
	if err != nil {
		t.Fatal(err)
	}
	held := make(chan *metapb.HoldReply, 1)
	go func() {
		defer close(held)
		o, err := orders.Recv()
		if err != nil {
			t.Error(err)
			return
		}
		r, err := c.Hold(ctx, &metapb.HoldRequest{Client: me, Request: o.Request, File: file, Epoch: epoch})
		if err != nil {
			t.Error(err)
			return
		}
		held <- r
	}()
	id := slices.Repeat([]byte{9}, 16)
	taken, err := c.Snapshot(ctx, &metapb.SnapshotRequest{Paths: []string{"/f"}, Ids: [][]byte{id}, Name: "s"})
	if err != nil || !bytes.Equal(taken.Snapshots[0].Id, id) {
		t.Fatalf("%v, %v", taken, err)
	}
	if r := <-held; r == nil || !r.Taken || !slices.Equal(r.Layers, []uint32{1, 2}) {
		t.Errorf("the holder hears %v", r)
	}
	late, err := c.Hold(ctx, &metapb.HoldRequest{Client: me, Request: []byte("long ago"), File: file, Epoch: epoch})
	if err != nil || late.Taken || !slices.Equal(late.Layers, []uint32{1, 2}) {
		t.Errorf("of a request that nobody knows: %v, %v", late, err)
	}
}
