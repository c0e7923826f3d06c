package search

import "fmt"

// Label says what a step is. It is put into words only when somebody reads it.
type Label struct {
	format string
	args   [4]uint8
	n      uint8
}

// Say makes a label of a format for up to four small numbers.
func Say(format string, args ...uint8) Label {
	l := Label{format: format, n: uint8(len(args))}
	copy(l.args[:], args)
	return l
}

func (l Label) String() string {
	args := make([]any, l.n)
	for i := range args {
		args[i] = l.args[i]
	}
	return fmt.Sprintf(l.format, args...)
}
