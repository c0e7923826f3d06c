package block

// AtomicWriter is a Device that takes writes with the flag Atomic: each takes effect as a whole or, after a failure of power or process or with an
// error, not at all, and is durable when it completes. A device that does not implement it promises that of no write.
type AtomicWriter interface {
	AtomicWrites() Atomicity
}

// Atomicity is which writes can be atomic, in bytes.
type Atomicity struct {
	Most        int64 // the longest; 0: none
	Granularity int64 // offset and length are multiples of it
	Within      int64 // none crosses a multiple of it
}

// AtomicWrites is AtomicWriter.AtomicWrites for any device: zeros if it is none.
func AtomicWrites(d Device) Atomicity {
	if a, ok := d.(AtomicWriter); ok {
		return a.AtomicWrites()
	}
	return Atomicity{}
}

// Allows tells whether such a write can be.
func (a Atomicity) Allows(offset, length int64) bool {
	return length <= a.Most && (offset|length)%a.Granularity == 0 && offset%a.Within+length <= a.Within
}
