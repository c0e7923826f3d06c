package leader

import (
	"context"
	"net/netip"
	"strings"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
	"pstorage/meta/metapb"
)

// SetExport makes an NBD export, or alters one.
func (l *Leader) SetExport(ctx context.Context, in *metapb.SetExportRequest) (*metapb.Export, error) {
	e := in.GetExport()
	for _, c := range e.GetClients() {
		if !isClient(c) {
			return nil, Status(invalid(`client %.60q: must be "cert:NAME", an address, a range of addresses ("10.0.0.0/24"), or "unix"`, c))
		}
	}
	made, err := propose[*fsmpb.Export](ctx, l, &fsmpb.Command{Command: &fsmpb.Command_SetExport{SetExport: &fsmpb.SetExport{Export: &fsmpb.Export{
		Name: e.GetName(), Path: e.GetPath(), Snapshot: e.GetSnapshot(), ReadOnly: e.GetReadOnly(), Hosts: e.GetHosts(), Clients: e.GetClients(),
		Created: unixNow(),
	}}}})
	if err != nil {
		return nil, Status(err)
	}
	return exportOut(made), nil
}

// isClient tells whether an export can be for such clients.
func isClient(c string) bool {
	if name, is := strings.CutPrefix(c, "cert:"); is {
		return name != ""
	}
	_, err := netip.ParsePrefix(c)
	if err != nil {
		_, err = netip.ParseAddr(c)
	}
	return err == nil || c == "unix"
}

// DeleteExport forgets an NBD export.
func (l *Leader) DeleteExport(ctx context.Context, in *metapb.DeleteExportRequest) (*metapb.DeleteExportReply, error) {
	_, err := l.consensus.Propose(ctx, &fsmpb.Command{Command: &fsmpb.Command_DeleteExport{DeleteExport: &fsmpb.DeleteExport{Name: in.Name}}})
	if err != nil {
		return nil, Status(err)
	}
	return &metapb.DeleteExportReply{}, nil
}

// ListExports returns all NBD exports.
func (l *Leader) ListExports(context.Context, *metapb.ListExportsRequest) (*metapb.ListExportsReply, error) {
	out := &metapb.ListExportsReply{}
	err := l.View(func(v *fsm.View) error {
		for _, e := range v.Exports() {
			out.Exports = append(out.Exports, exportOut(e))
		}
		return nil
	})
	return out, Status(err)
}

func exportOut(e *fsmpb.Export) *metapb.Export {
	return &metapb.Export{Name: e.Name, Path: e.Path, Snapshot: e.Snapshot, ReadOnly: e.ReadOnly, Hosts: e.Hosts, Clients: e.Clients, CreatedUnix: e.Created}
}
