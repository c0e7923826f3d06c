package target

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"pstorage/blockstore/block"
	"pstorage/meta/metapb"
	"pstorage/target/nbd"
)

// Exports is the catalog of what NBD clients are served: what the metadata servers have on record as exported, on this host, to that client, and, unless Only is set,
// volumes that no export is of. They are asked each time; when they do not answer, nothing is opened anew.
type Exports struct {
	Volumes        *Volumes
	Host, HostName string // of this machine
	Only           bool
}

// exported is what an export's name stands for.
type exported struct {
	volume   string // as Volumes names it
	readOnly bool
}

// List implements block.Catalog.
func (x *Exports) List(ctx context.Context) ([]block.VolumeInfo, error) {
	records, err := x.records(ctx)
	if err != nil {
		return nil, err
	}
	volumes, err := x.Volumes.List(ctx)
	if err != nil {
		return nil, err
	}
	var out []block.VolumeInfo
	for _, e := range records {
		if !x.admits(ctx, e) {
			continue
		}
		if info, err := x.describe(ctx, e, volumes); err == nil { // else it is gone
			out = append(out, info)
		}
	}
	if !x.Only {
		for _, v := range volumes {
			if !slices.ContainsFunc(records, func(e *metapb.Export) bool { return e.Name == v.Name || isOf(e, v.Name) }) {
				out = append(out, v)
			}
		}
	}
	slices.SortFunc(out, func(a, b block.VolumeInfo) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// describe describes an export; all volumes are known.
func (x *Exports) describe(ctx context.Context, e *metapb.Export, volumes []block.VolumeInfo) (block.VolumeInfo, error) {
	target := standsFor(e)
	i := slices.IndexFunc(volumes, func(v block.VolumeInfo) bool { return v.Name == target.volume })
	if i >= 0 {
		return target.info(e.Name, volumes[i]), nil
	}
	info, err := x.Volumes.Lookup(ctx, target.volume)
	return target.info(e.Name, info), err
}

// Lookup describes one export without opening it.
func (x *Exports) Lookup(ctx context.Context, name string) (block.VolumeInfo, error) {
	t, err := x.resolve(ctx, name)
	if err != nil {
		return block.VolumeInfo{}, err
	}
	info, err := x.Volumes.Lookup(ctx, t.volume)
	if err != nil {
		return block.VolumeInfo{}, err
	}
	return t.info(name, info), nil
}

// Open implements block.Catalog.
func (x *Exports) Open(ctx context.Context, name string) (block.Device, block.VolumeInfo, error) {
	t, err := x.resolve(ctx, name)
	if err != nil {
		return nil, block.VolumeInfo{}, err
	}
	d, info, err := x.Volumes.Open(ctx, t.volume)
	if err != nil {
		return nil, block.VolumeInfo{}, err
	}
	return d, t.info(name, info), nil
}

// Older implements block.Historian.
func (x *Exports) Older(ctx context.Context, name string) ([]string, error) {
	t, err := x.resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	return x.Volumes.Older(ctx, t.volume)
}

// Since implements block.Historian.
func (x *Exports) Since(ctx context.Context, name, older string) (block.Changes, error) {
	t, err := x.resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	return x.Volumes.Since(ctx, t.volume, older)
}

// resolve finds what is served under a name to the client that the context names. What is not for it does not exist.
func (x *Exports) resolve(ctx context.Context, name string) (exported, error) {
	records, err := x.records(ctx)
	if err != nil {
		return exported{}, err
	}
	if e := named(records, name); e != nil {
		return x.admitted(ctx, e, standsFor(e))
	}
	if at := strings.LastIndexByte(name, '@'); at > 0 { // a snapshot of what is exported
		if e := named(records, name[:at]); e != nil && e.Snapshot == "" {
			return x.admitted(ctx, e, exported{strings.TrimPrefix(e.Path, "/") + name[at:], true})
		}
	}
	if x.Only || slices.ContainsFunc(records, func(e *metapb.Export) bool { return isOf(e, name) }) {
		return exported{}, block.ErrNotFound
	}
	return exported{volume: name}, nil
}

func (x *Exports) admitted(ctx context.Context, e *metapb.Export, t exported) (exported, error) {
	if !x.admits(ctx, e) {
		return exported{}, block.ErrNotFound
	}
	return t, nil
}

// records asks for all exports. Metadata servers of an older version have none.
func (x *Exports) records(ctx context.Context) ([]*metapb.Export, error) {
	ctx, cancel := context.WithTimeout(ctx, rpcTime)
	defer cancel()
	reply, err := x.Volumes.meta.ListExports(ctx, &metapb.ListExportsRequest{})
	if status.Code(err) == codes.Unimplemented {
		return nil, nil
	}
	return reply.GetExports(), explain(err)
}

func named(records []*metapb.Export, name string) *metapb.Export {
	for _, e := range records {
		if e.Name == name {
			return e
		}
	}
	return nil
}

func standsFor(e *metapb.Export) exported {
	t := exported{strings.TrimPrefix(e.Path, "/"), e.ReadOnly}
	if e.Snapshot != "" {
		t.volume += "@" + e.Snapshot
	}
	return t
}

// info is the volume's as the export's.
func (t exported) info(name string, v block.VolumeInfo) block.VolumeInfo {
	v.Name, v.ReadOnly = name, v.ReadOnly || t.readOnly
	return v
}

// isOf tells whether the export is of the volume, so that this, and its snapshots, are served in no other way.
func isOf(e *metapb.Export, name string) bool {
	snapshot, is := strings.CutPrefix(name, strings.TrimPrefix(e.Path, "/"))
	return is && e.Snapshot == "" && (snapshot == "" || snapshot[0] == '@')
}

// admits tells whether the export is for this host, and for the client.
func (x *Exports) admits(ctx context.Context, e *metapb.Export) bool {
	if len(e.Hosts) > 0 && !slices.Contains(e.Hosts, x.Host) && !slices.Contains(e.Hosts, x.HostName) {
		return false
	}
	c, ok := nbd.ClientOf(ctx)
	return len(e.Clients) == 0 || ok && slices.ContainsFunc(e.Clients, func(who string) bool { return is(c, who) })
}

// is tells whether the client is one of those that an export names so.
func is(c nbd.Client, who string) bool {
	if name, ok := strings.CutPrefix(who, "cert:"); ok {
		return name != "" && c.Certificate == name
	}
	if !c.Address.IsValid() {
		return who == "unix"
	}
	if within, err := netip.ParsePrefix(who); err == nil {
		return within.Contains(c.Address.WithZone(""))
	}
	address, err := netip.ParseAddr(who)
	return err == nil && address.Unmap() == c.Address.WithZone("")
}

var _ block.Historian = (*Exports)(nil)
