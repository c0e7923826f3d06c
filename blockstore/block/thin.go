package block

// Space is what is known of the room for a device's data, in bytes of its data.
type Space struct {
	Used      int64 // what the device takes
	Available int64 // what it can take beyond that, shared with whatever else takes from the store
	Capacity  int64 // what it could take if the store were empty
}

// Thin is a Device that takes its space from a store as it is written, and tells how much that has left.
type Thin interface {
	// OnSpace has f called with what is known, if anything is, and again whenever it was looked up, from any goroutine, until stop is called. f must not
	// block. It may be called once more while stop is under way.
	OnSpace(f func(Space)) (stop func())
}

// OnSpace is Thin.OnSpace for any device; ok tells whether it is one.
func OnSpace(d Device, f func(Space)) (stop func(), ok bool) {
	if t, is := d.(Thin); is {
		return t.OnSpace(f), true
	}
	return func() {}, false
}
