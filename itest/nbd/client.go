package nbd

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// Op is a request and, when it is done, its outcome.
type Op struct {
	Command uint16
	Flags   uint16
	Offset  int64
	Length  uint32
	Data    []byte // of a write: what is sent; of a read: Length bytes that are filled
	Err     error
	Owner   any

	done func(*Op)
}

// Client is one connection. Requests may be sent from any goroutine.
type Client struct {
	Export
	conn net.Conn

	mu      sync.Mutex // also around writing, so that requests go out whole
	pending map[uint64]*Op
	next    uint64
	broken  error
}

// ErrBroken: the connection ended before the reply came.
var ErrBroken = errors.New("connection ended")

// Connect dials and starts reading replies.
func Connect(uri string) (*Client, error) {
	conn, export, err := Dial(uri)
	if err != nil {
		return nil, err
	}
	c := &Client{Export: export, conn: conn, pending: map[uint64]*Op{}}
	go c.receive()
	return c, nil
}

// Submit sends a request; done is called once, from another goroutine or from here.
func (c *Client) Submit(op *Op, done func(*Op)) {
	op.done, op.Err = done, nil
	frame := make([]byte, requestSize, requestSize+len(op.Data))
	c.mu.Lock()
	if c.broken != nil {
		op.Err = c.broken
		c.mu.Unlock()
		done(op)
		return
	}
	c.next++
	c.pending[c.next] = op
	putRequest(frame, op.Command, op.Flags, c.next, op.Offset, op.Length)
	if op.Command == CmdWrite {
		frame = append(frame, op.Data...)
	}
	_, err := c.conn.Write(frame)
	c.mu.Unlock()
	if err != nil {
		c.conn.Close() // the reader fails everything that is pending
	}
}

// Do sends a request and waits for its outcome.
func (c *Client) Do(op *Op) error {
	done := make(chan struct{})
	c.Submit(op, func(*Op) { close(done) })
	<-done
	return op.Err
}

// Write stores data.
func (c *Client) Write(data []byte, offset int64) error {
	return c.Do(&Op{Command: CmdWrite, Offset: offset, Length: uint32(len(data)), Data: data})
}

// Read fills data.
func (c *Client) Read(data []byte, offset int64) error {
	return c.Do(&Op{Command: CmdRead, Offset: offset, Length: uint32(len(data)), Data: data})
}

// Flush makes durable what was acknowledged.
func (c *Client) Flush() error { return c.Do(&Op{Command: CmdFlush}) }

// Close says goodbye and ends the connection.
func (c *Client) Close() error {
	var bye [requestSize]byte
	putRequest(bye[:], CmdDisconnect, 0, 0, 0, 0)
	if err := c.conn.SetWriteDeadline(time.Now().Add(closeTime)); err != nil { // also of a request that is being sent
		return errors.Join(err, c.conn.Close())
	}
	c.mu.Lock()
	_, err := c.conn.Write(bye[:])
	c.mu.Unlock()
	return errors.Join(err, c.conn.Close())
}

// closeTime is how long a server that does not read holds up the end.
const closeTime = time.Second

// receive reads replies until the connection ends, then fails what is left.
func (c *Client) receive() {
	in := bufio.NewReaderSize(c.conn, 256<<10)
	err := c.receiveAll(in)
	c.conn.Close()
	c.mu.Lock()
	c.broken = fmt.Errorf("%w: %w", ErrBroken, err)
	left := c.pending
	c.pending = map[uint64]*Op{}
	c.mu.Unlock()
	for _, op := range left {
		op.Err = c.broken
		op.done(op)
	}
}

func (c *Client) receiveAll(in io.Reader) error {
	var head [replySize]byte
	for {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return err
		}
		if binary.BigEndian.Uint32(head[:]) != replyMagic {
			return fmt.Errorf("bad reply: %x", head)
		}
		cookie, code := binary.BigEndian.Uint64(head[8:]), binary.BigEndian.Uint32(head[4:])
		c.mu.Lock()
		op := c.pending[cookie]
		delete(c.pending, cookie)
		c.mu.Unlock()
		if op == nil {
			return fmt.Errorf("a reply to nothing: cookie %d", cookie)
		}
		if code != 0 {
			op.Err = fmt.Errorf("request %d at %d+%d: %w", op.Command, op.Offset, op.Length, syscall.Errno(code))
		} else if op.Command == CmdRead {
			if _, err := io.ReadFull(in, op.Data[:op.Length]); err != nil {
				op.Err = fmt.Errorf("%w: %w", ErrBroken, err)
			}
		}
		op.done(op)
	}
}
