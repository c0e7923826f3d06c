package hosts

import (
	"errors"
	"fmt"
)

// Way says which frames of a host are lost.
type Way int

// The ways to cut a host off.
const (
	Both Way = iota
	In       // what others send to it
	Out      // what it sends
)

func (w Way) String() string { return [...]string{"both ways", "inward", "outward"}[w] }

// Cut drops frames between the host and all others, until Heal.
func (h *Host) Cut(w Way) error {
	var errs []error
	if w != Out {
		errs = append(errs, h.net.hub.run("nft", fmt.Sprintf("add rule bridge cut c oifname %s drop", h.port())))
	}
	if w != In {
		errs = append(errs, h.net.hub.run("nft", fmt.Sprintf("add rule bridge cut c iifname %s drop", h.port())))
	}
	return errors.Join(errs...)
}

// Part drops frames between two hosts, until Heal.
func (h *Host) Part(other *Host) error {
	return errors.Join(h.mute(other), other.mute(h))
}

// mute drops what the host sends to another.
func (h *Host) mute(other *Host) error {
	return h.net.hub.run("nft", fmt.Sprintf("add rule bridge cut c iifname %s oifname %s drop", h.port(), other.port()))
}

// Heal ends all cuts.
func (n *Net) Heal() error { return n.hub.run("nft", "flush chain bridge cut c") }

// Slow limits what the host may send and receive, in bits per second as tc writes them ("1mbit"). Fast ends it.
func (h *Host) Slow(rate string) error {
	tbf := []string{"root", "tbf", "rate", rate, "burst", "64kb", "latency", "500ms"}
	return errors.Join(
		h.net.hub.run(append([]string{"tc", "qdisc", "replace", "dev", h.port()}, tbf...)...),
		h.run(append([]string{"tc", "qdisc", "replace", "dev", "eth0"}, tbf...)...),
	)
}

// Fast ends Slow.
func (h *Host) Fast() error {
	return errors.Join(
		h.net.hub.run("tc", "qdisc", "del", "dev", h.port(), "root"),
		h.run("tc", "qdisc", "del", "dev", "eth0", "root"),
	)
}
