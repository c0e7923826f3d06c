package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"pstorage/itest/cluster"
)

const (
	reservationsTime = 15 * time.Minute
	reservedBytes    = 64 << 20
)

// step is a command in one of the two guests.
type step struct{ guest, command string }

// failover is what a failover cluster does: a has the disk, b takes it away from a while a writes, a comes back.
var failover = []step{
	{"a", "pr --out --register --param-sark=0xa1"},
	{"a", "pr --out --reserve --param-rk=0xa1 --prout-type=5"},
	{"a", "held 0xa1 'Write Exclusive, registrants only'"},
	{"a", "fill A"},
	{"b", "refused fill B"},
	{"b", "filled A"},
	{"b", "refused pr --out --preempt-abort --param-rk=0xb2 --param-sark=0xa1 --prout-type=5"},
	{"b", "pr --out --register --param-sark=0xb2"},
	{"b", "keys 0xa1 0xb2"},
	{"b", "refused pr --out --reserve --param-rk=0xb2 --prout-type=5"},
	{"b", "fill B"},
	{"a", "filled B"},

	{"a", "flood A"},
	{"a", "until flooding; do sleep 0.1; done"},
	{"b", preemptAbort},
	{"b", "fill B"},
	{"a", "flooded"},
	{"a", "refused fill A"},
	{"a", "filled B"},
	{"b", "filled B"},
	{"b", "keys 0xb2"},
	{"b", "held 0xb2 'Write Exclusive, registrants only'"},
	{"a", "refused pr --out --register --param-rk=0xa1 --param-sark=0xa1"},

	{"a", "pr --out --register --param-sark=0xa1"},
	{"a", "fill A"},
	{"b", "filled A"},
	{"b", "pr --out --release --param-rk=0xb2 --prout-type=5"},
}

// exclusive is what one node alone may do: writing with type 1, and reading too with type 3.
var exclusive = []step{
	{"a", "pr --out --reserve --param-rk=0xa1 --prout-type=1"},
	{"a", "held 0xa1 'Write Exclusive'"},
	{"a", "fill A"},
	{"b", "refused fill B"},
	{"b", "filled A"},
	{"a", "pr --out --release --param-rk=0xa1 --prout-type=1"},

	{"b", "pr --out --reserve --param-rk=0xb2 --prout-type=3"},
	{"a", "held 0xb2 'Exclusive Access'"},
	{"b", "fill B"},
	{"a", "refused fill A"},
	{"a", "refused look"},
	{"a", "pr --out --preempt-abort --param-rk=0xa1 --param-sark=0xb2 --prout-type=3"},
	{"a", "filled B"},
	{"b", "refused look"},

	{"a", "pr --out --clear --param-rk=0xa1"},
	{"b", "keys"},
	{"b", "fill B"},
	{"a", "filled B"},
	{"a", "fill A"},
}

const preemptAbort = "pr --out --preempt-abort --param-rk=0xb2 --param-sark=0xa1 --prout-type=5"

// guestReservations has two guests reserve a disk that they share.
func (j *judge) guestReservations(ctx context.Context) (said string, err error) {
	ctx, cancel := context.WithTimeout(ctx, reservationsTime)
	defer cancel()
	if err := guestImage(ctx); err != nil {
		return "", err
	}
	u, err := j.up(ctx, reservedBytes)
	if err != nil {
		return "", err
	}
	defer func() { err = stopUp(u, err) }()
	portal, err := url.Parse(u.ISCSI("v"))
	if err != nil {
		return "", err
	}
	guests, err := j.bootNodes(ctx, "a", "b")
	for _, guest := range guests {
		defer guest.Kill()
	}
	for name, guest := range guests {
		if err == nil {
			_, err = guest.Do(ctx, fmt.Sprintf("attach %s 10.0.2.2:%s", name, portal.Port()))
		}
	}
	if err != nil {
		return "", err
	}
	return play(ctx, guests)
}

// bootNodes boots guests at the same time. Those that are returned have booted, also if there is an error.
func (j *judge) bootNodes(ctx context.Context, names ...string) (map[string]*cluster.Shell, error) {
	type booted struct {
		name  string
		guest *cluster.Shell
		err   error
	}
	all := make(chan booted)
	for _, name := range names {
		go func() {
			guest, err := j.bootShell(ctx, nil, name, "guest-reservations.sh")
			all <- booted{name, guest, err}
		}()
	}
	guests := map[string]*cluster.Shell{}
	var err error
	for range names {
		b := <-all
		if b.err != nil {
			err = errors.Join(err, b.err)
		} else {
			guests[b.name] = b.guest
		}
	}
	return guests, err
}

// play does all steps in their order.
func play(ctx context.Context, guests map[string]*cluster.Shell) (string, error) {
	steps := append(append(failover[:len(failover):len(failover)], exclusive...), step{"a", "detach"}, step{"b", "detach"})
	var aborted time.Duration
	for i, s := range steps {
		began := time.Now()
		if _, err := guests[s.guest].Do(ctx, s.command); err != nil {
			return "", fmt.Errorf("step %d: %w", i+1, err)
		}
		if s.command == preemptAbort {
			aborted = time.Since(began)
		}
	}
	return fmt.Sprintf("two guests, %d steps with reservations of types 5, 1 and 3: who may write or read was as it has to be; while a wrote b preempted and aborted it in %v, and nothing of a's came later",
		len(steps), aborted.Round(time.Millisecond)), nil
}
