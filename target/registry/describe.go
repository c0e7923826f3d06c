package registry

import (
	"fmt"
	"net"
	"net/netip"
	"strings"

	"pstorage/meta/targetpb"
	"pstorage/target/iscsi"
	"pstorage/target/scsi"
)

// description is a target as it is to be served.
type description struct {
	revision uint64
	info     iscsi.TargetInfo
	err      error // why it cannot be served
}

// describeAll returns the targets of an answer that are to run.
func describeAll(reply *targetpb.SyncReply) map[string]*description {
	secrets := map[string]iscsi.Secret{}
	for _, c := range reply.GetCredentials() {
		secrets[c.GetUser()] = iscsi.NewSecret(c.GetSecret())
	}
	all := map[string]*description{}
	for _, t := range reply.GetTargets() {
		if t.GetEnabled() {
			d := &description{revision: t.GetRevision()}
			d.info, d.err = describe(t, secrets)
			all[d.info.Name] = d
		}
	}
	return all
}

// describe makes the description of a target.
func describe(t *targetpb.Target, secrets map[string]iscsi.Secret) (info iscsi.TargetInfo, err error) {
	info = iscsi.TargetInfo{Name: strings.ToLower(t.GetName()), Initiators: t.GetInitiators(), Groups: groupsOf(t)}
	for _, l := range t.GetLuns() {
		info.LUNs = append(info.LUNs, iscsi.LUN{
			Number: int(l.GetNumber()), Volume: strings.TrimPrefix(l.GetPath(), "/"), BlockSize: int(l.GetBlockSize()), ReadOnly: l.GetReadOnly(),
		})
	}
	for _, p := range t.GetPortals() {
		address, err := portalAddress(p.GetAddress())
		if err != nil {
			return info, err
		}
		info.Portals = append(info.Portals, iscsi.Portal{Address: address, Group: uint16(p.GetGroup())})
	}
	if len(info.Portals) == 0 {
		return info, fmt.Errorf("it has no address")
	}
	if user := t.GetAccount(); user != "" {
		a, err := account(user, secrets)
		if err != nil {
			return info, err
		}
		info.Accounts = []iscsi.Account{a}
	}
	if user := t.GetMutual(); user != "" {
		a, err := account(user, secrets)
		if err != nil {
			return info, err
		}
		info.Mutual = &a
	}
	return info, info.Validate()
}

func account(user string, secrets map[string]iscsi.Secret) (iscsi.Account, error) {
	s, known := secrets[user]
	if !known {
		return iscsi.Account{}, fmt.Errorf("there is no account %s", user)
	}
	return iscsi.Account{User: user, Secret: s}, nil
}

func groupsOf(t *targetpb.Target) (groups []scsi.PortGroup) {
	for _, g := range t.GetGroups() {
		groups = append(groups, scsi.PortGroup{Tag: uint16(g.GetId()), State: scsi.AccessState(g.GetState()), Preferred: g.GetPreferred()})
	}
	return groups
}

// defaultPort is iSCSI's (RFC 7143, 4.2.7).
const defaultPort = "3260"

// portalAddress completes IP or IP:PORT to IP:PORT, in the form that connections' addresses have.
func portalAddress(text string) (string, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		host, port = strings.Trim(text, "[]"), defaultPort
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return "", fmt.Errorf("portal %q is not an IP address", text)
	}
	return net.JoinHostPort(ip.Unmap().String(), port), nil
}
