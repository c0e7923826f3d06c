package attach

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"pstorage/target/nbd"
)

// Kernel is the NBD client of this host's kernel.
type Kernel interface {
	// Connect makes a device of connections to an export and returns its number.
	Connect(d Device, sockets []int) (index uint32, err error)
	// Reconfigure has a connection take the place of one that has ended: ErrAlive if none has, ErrGone if there is no such device.
	Reconfigure(index uint32, d Device, socket int) error
	// Disconnect ends a device.
	Disconnect(index uint32) error
	// Connected tells whether the device is one, with or without a connection.
	Connected(index uint32) (bool, error)
	// Dead sends the number of each device of which a connection has ended, until ctx ends.
	Dead(ctx context.Context) (<-chan uint32, error)
}

// Device is what the kernel is told of a device.
type Device struct {
	Export   nbd.Export
	Backend  string        // identifies it (/sys/block/nbdN/backend)
	Patience time.Duration // how long requests wait without a connection, whole seconds; then they fail
}

// Errors of a Kernel.
var (
	ErrNoModule = errors.New("the kernel has no NBD client: modprobe nbd")
	ErrAlive    = errors.New("all connections are alive")
	ErrGone     = errors.New("no such device is mapped")
)

// Numbers of linux/nbd-netlink.h.
const (
	family         = "nbd"
	multicastGroup = "nbd_mc_group"
	version        = 1

	cmdConnect     = 1
	cmdDisconnect  = 2
	cmdReconfigure = 3
	cmdLinkDead    = 4
	cmdStatus      = 5

	attrIndex       = 1
	attrSize        = 2
	attrBlockSize   = 3
	attrTimeout     = 4 // of a request, seconds
	attrServerFlags = 5
	attrSockets     = 7
	attrPatience    = 8 // DEAD_CONN_TIMEOUT, seconds
	attrDevices     = 9
	attrBackend     = 10

	itemOf          = 1 // SOCK_ITEM, DEVICE_ITEM
	itemFD          = 1
	itemIndex       = 1
	itemConnected   = 2
	defaultMinBlock = 512
)

// requestTime is after what time without an answer the kernel sends a request again on another connection, and gives up the one that it was sent on. It
// also waits that long with those whose connection has ended. It is longer than the cluster takes to go on without a server of its own, and than what a
// request may rightly take: one that is given up each time would never end.
const requestTime = 15 * time.Second

// Netlink is the Kernel of the host.
type Netlink struct {
	id, group uint32
}

// OpenNetlink finds the kernel's NBD client.
func OpenNetlink() (*Netlink, error) {
	f, err := netlink.GenlFamilyGet(family)
	if errors.Is(err, syscall.ENOENT) {
		return nil, ErrNoModule
	}
	if err != nil {
		return nil, fmt.Errorf("generic netlink: %w", err)
	}
	n := &Netlink{id: uint32(f.ID)}
	for _, g := range f.Groups {
		if g.Name == multicastGroup {
			n.group = g.ID
		}
	}
	return n, nil
}

func (n *Netlink) request(command uint8, attributes ...nl.NetlinkRequestData) ([][]byte, error) {
	r := nl.NewNetlinkRequest(int(n.id), unix.NLM_F_ACK)
	r.AddData(&nl.Genlmsg{Command: command, Version: version})
	for _, a := range attributes {
		r.AddData(a)
	}
	return r.Execute(unix.NETLINK_GENERIC, 0)
}

func u32(kind int, v uint32) *nl.RtAttr { return nl.NewRtAttr(kind, nl.Uint32Attr(v)) }

func u64(kind int, v uint64) *nl.RtAttr { return nl.NewRtAttr(kind, nl.Uint64Attr(v)) }

// sockets lists connections.
func sockets(fds []int) *nl.RtAttr {
	list := nl.NewRtAttr(attrSockets|unix.NLA_F_NESTED, nil)
	for _, fd := range fds {
		list.AddRtAttr(itemOf|unix.NLA_F_NESTED, nil).AddRtAttr(itemFD, nl.Uint32Attr(uint32(fd)))
	}
	return list
}

// attributes are those that Connect and Reconfigure have in common.
func (d *Device) attributes(fds []int) []nl.NetlinkRequestData {
	return []nl.NetlinkRequestData{
		u64(attrSize, uint64(d.Export.Size)),
		u64(attrBlockSize, uint64(max(d.Export.MinBlock, defaultMinBlock))),
		u64(attrTimeout, uint64(requestTime/time.Second)),
		u64(attrServerFlags, uint64(d.Export.Flags)),
		u64(attrPatience, uint64(d.Patience/time.Second)),
		nl.NewRtAttr(attrBackend, nl.ZeroTerminated(d.Backend)),
		sockets(fds),
	}
}

// Connect implements Kernel.
func (n *Netlink) Connect(d Device, fds []int) (uint32, error) {
	replies, err := n.request(cmdConnect, d.attributes(fds)...)
	if err != nil {
		return 0, fmt.Errorf("kernel: connect: %w", err)
	}
	for _, reply := range replies {
		if b := find(reply, attrIndex); len(b) == 4 {
			return binary.NativeEndian.Uint32(b), nil
		}
	}
	return 0, errors.New("kernel: connect: it does not say which device")
}

// Reconfigure implements Kernel.
func (n *Netlink) Reconfigure(index uint32, d Device, fd int) error {
	_, err := n.request(cmdReconfigure, append(d.attributes([]int{fd}), u32(attrIndex, index))...)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: nbd%d: %w", ErrGone, index, err)
	case err != nil:
		return fmt.Errorf("kernel: reconfigure nbd%d: %w", index, err)
	}
	return taken(fd)
}

// taken: the kernel says that it has taken a connection when it had no place for it, too. One that it has taken has a limit on the time it sends.
func taken(fd int) error {
	limit, err := unix.GetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO)
	if err == nil && limit.Sec == 0 && limit.Usec == 0 {
		err = ErrAlive
	}
	return err
}

// Disconnect implements Kernel.
func (n *Netlink) Disconnect(index uint32) error {
	if _, err := n.request(cmdDisconnect, u32(attrIndex, index)); err != nil {
		return fmt.Errorf("kernel: disconnect nbd%d: %w", index, err)
	}
	return nil
}

// Connected implements Kernel.
func (n *Netlink) Connected(index uint32) (bool, error) {
	replies, err := n.request(cmdStatus, u32(attrIndex, index))
	if err != nil {
		return false, fmt.Errorf("kernel: status of nbd%d: %w", index, err)
	}
	for _, reply := range replies {
		item := inside(find(reply, attrDevices), itemOf)
		if i := inside(item, itemIndex); len(i) != 4 || binary.NativeEndian.Uint32(i) != index {
			continue
		}
		c := inside(item, itemConnected)
		return len(c) > 0 && c[0] != 0, nil
	}
	return false, nil
}

// find returns an attribute of a message.
func find(message []byte, kind int) []byte {
	if len(message) < nl.SizeofGenlmsg {
		return nil
	}
	return inside(message[nl.SizeofGenlmsg:], kind)
}

// inside returns an attribute of a list of attributes.
func inside(list []byte, kind int) []byte {
	for len(list) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(list))
		if length < unix.SizeofRtAttr || length > len(list) {
			return nil
		}
		if int(binary.NativeEndian.Uint16(list[2:]))&^unix.NLA_F_NESTED == kind {
			return list[unix.SizeofRtAttr:length]
		}
		list = list[min(len(list), (length+3)&^3):]
	}
	return nil
}

// Dead implements Kernel.
func (n *Netlink) Dead(ctx context.Context) (<-chan uint32, error) {
	s, err := nl.Subscribe(unix.NETLINK_GENERIC)
	if err != nil {
		return nil, fmt.Errorf("generic netlink: %w", err)
	}
	if err := unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(n.group)); err != nil {
		s.Close()
		return nil, fmt.Errorf("generic netlink: %w", err)
	}
	out := make(chan uint32, 64)
	context.AfterFunc(ctx, s.Close)
	go func() {
		defer close(out)
		for ctx.Err() == nil {
			messages, _, err := s.Receive()
			if errors.Is(err, unix.ENOBUFS) {
				continue // some are lost: the keeper also looks by itself
			}
			if err != nil {
				return
			}
			for _, m := range messages {
				if len(m.Data) == 0 || m.Data[0] != cmdLinkDead {
					continue
				}
				if b := find(m.Data, attrIndex); len(b) == 4 {
					select {
					case out <- binary.NativeEndian.Uint32(b):
					default:
					}
				}
			}
		}
	}()
	return out, nil
}
