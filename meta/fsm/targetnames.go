package fsm

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// TargetPrefix begins the names of targets that are given without one.
const TargetPrefix = "iqn.2014-04.com.pstorage:"

// lunFolder is where LUNs' volumes are. Part of the format.
const lunFolder = "/iscsi"

// maxTargetName bounds iSCSI names (RFC 7143, 4.2.7.1).
const maxTargetName = 223

// The three kinds of iSCSI names (RFC 7143, 4.2.7): a date and a domain's name in reverse, with what its owner likes to add; EUI-64; NAA.
var (
	iqnName = regexp.MustCompile(`^iqn\.[0-9]{4}-(0[1-9]|1[0-2])\.[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[a-z0-9.:-]+)?$`)
	euiName = regexp.MustCompile(`^eui\.[0-9a-f]{16}$`)
	naaName = regexp.MustCompile(`^naa\.([0-9a-f]{16}|[0-9a-f]{32})$`)
)

// TargetName returns a target's iSCSI name as it is kept. A name that is not of one of the three kinds is what follows TargetPrefix.
func TargetName(name string) (string, error) {
	full := strings.ToLower(name)
	if !strings.HasPrefix(full, "iqn.") && !strings.HasPrefix(full, "eui.") && !strings.HasPrefix(full, "naa.") {
		full = TargetPrefix + full
	}
	if len(full) > maxTargetName || !iqnName.MatchString(full) && !euiName.MatchString(full) && !naaName.MatchString(full) {
		return "", fmt.Errorf("target name %q: it is letters, digits, dots, hyphens and colons after %s, or a whole iqn., eui. or naa. name of at most %d bytes: %w",
			shorten(name), TargetPrefix, maxTargetName, ErrInvalid)
	}
	return full, nil
}

// initiatorName returns an initiator's name as it is kept. Initiators are named elsewhere, so little is asked of them.
func initiatorName(name string) (string, error) {
	name = strings.ToLower(name)
	bad := name == "" || len(name) > maxTargetName || !utf8.ValidString(name)
	for _, r := range name {
		bad = bad || r <= ' ' || r == 0x7f || r == ','
	}
	if bad {
		return "", fmt.Errorf("initiator name %q: %w", shorten(name), ErrInvalid)
	}
	return name, nil
}

// portalAddress returns an address as it is kept, IP or IP:PORT, and its IP alone.
func portalAddress(address string) (kept string, ip netip.Addr, err error) {
	text, port := address, uint64(0)
	if p, parseErr := netip.ParseAddrPort(address); parseErr == nil {
		text, port = p.Addr().String(), uint64(p.Port())
		if port == 0 {
			err = fmt.Errorf("port 0")
		}
	}
	if err == nil {
		ip, err = netip.ParseAddr(text)
	}
	ip = ip.Unmap()
	if err != nil || ip.Zone() != "" || ip.IsUnspecified() || ip.IsMulticast() {
		return "", ip, fmt.Errorf("portal %q: it is IP or IP:PORT, the address of one machine: %w", shorten(address), ErrInvalid)
	}
	if port == 0 {
		return ip.String(), ip, nil
	}
	return netip.AddrPortFrom(ip, uint16(port)).String(), ip, nil
}

// volumePath is where a LUN's volume is.
func volumePath(target string, number uint32) string {
	return targetFolder(target) + "/" + strconv.FormatUint(uint64(number), 10)
}

// targetFolder is named after what follows the prefix, or after the whole name where it has another; colons become underscores, which no name has.
func targetFolder(target string) string {
	name := strings.ReplaceAll(strings.TrimPrefix(target, TargetPrefix), ":", "_")
	if strings.Trim(name, ".") == "" {
		name = "_" + name
	}
	return lunFolder + "/" + name
}
