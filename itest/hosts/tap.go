package hosts

import "errors"

// Tap adds a tap device to the switch, for a virtual machine: its command line begins with what is returned.
func (n *Net) Tap(name string) (enter []string, err error) {
	return n.hub.Enter(), errors.Join(
		n.hub.run("ip", "tuntap", "add", "dev", name, "mode", "tap"),
		n.hub.run("ip", "link", "set", name, "master", "hub", "up"),
	)
}

// Alias gives the host a further address.
func (h *Host) Alias(address string) error {
	return h.run("ip", "addr", "add", address+"/24", "dev", "eth0")
}

// CutAddress drops packets from and to an address, until Heal.
func (n *Net) CutAddress(address string) error {
	return errors.Join(
		n.hub.run("nft", "add rule bridge cut c ip saddr "+address+" drop"),
		n.hub.run("nft", "add rule bridge cut c ip daddr "+address+" drop"),
	)
}
