package block

// Lossy is a Device that may lose writes which it has completed and no Flush has covered, and tells when that has happened. A Flush that covers
// one of them fails with ErrLostWrites.
type Lossy interface {
	// OnLoss has f called at each loss, from any goroutine, until stop is called. It must not block.
	OnLoss(f func()) (stop func())
}

// OnLoss is Lossy.OnLoss for any device: f is never called if it is none.
func OnLoss(d Device, f func()) (stop func()) {
	if l, ok := d.(Lossy); ok {
		return l.OnLoss(f)
	}
	return func() {}
}
