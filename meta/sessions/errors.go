package sessions

import (
	"errors"
	"fmt"
)

// Errors that a caller treats differently.
var (
	ErrClosed   = errors.New("this metadata server leads no more")
	ErrReplaced = errors.New("the chunk server has attached anew")
	ErrNewer    = errors.New("a newer process of this chunk server is attached")
	ErrGone     = errors.New("the chunk server is not attached")
	ErrTimeout  = errors.New("the chunk server does not answer")
	ErrProtocol = errors.New("the chunk server sent what makes no sense")
	ErrRefused  = errors.New("the chunk server is refused")
	ErrMember   = errors.New("a member's replica is not to be prepared anew")
	ErrBusy     = errors.New("too many commands wait for the chunk server")
)

// CommandError is what a chunk server said of a chunk of a command.
type CommandError struct {
	Server uint32
	Text   string
}

func (e *CommandError) Error() string { return fmt.Sprintf("chunk server %d: %s", e.Server, e.Text) }
