package journal

import "errors"

// Errors that a caller treats differently.
var (
	ErrFormat  = errors.New("not a write journal of a known format")
	ErrForeign = errors.New("the write journal is another's, or an old copy")
	ErrDamaged = errors.New("the write journal is damaged: records that were durable are not there")
	ErrIO      = errors.New("write journal failed")
	ErrSize    = errors.New("not a size for a write journal")
	ErrClosed  = errors.New("write journal is closed")
)
