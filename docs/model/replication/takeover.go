package replication

// takeOver is what recovery does with a file that its holder has left: it is a client like any other, with an epoch of its own (R7takeover), but
// that it only does what every new holder does (R5), and closes the file then.
func (t *turn) takeOver(i int) {
	if int(t.s.used.takeovers) >= t.Takeovers || t.s.clean {
		return
	}
	n := *t.s
	n.used.takeovers++
	c := &n.clients[i]
	if !t.off(R7takeover) {
		t.grant(&n, i)
		c.recovery = true
		t.then(n, "recovery takes over as %c, epoch %d", letter(i), n.epoch)
		return
	}
	*c = client{phase: raising, epoch: n.epoch, layer: n.top, recovery: true, compare: true}
	t.learn(&n, c)
	t.then(n, "recovery takes over as %c, in the epoch that there is, %d", letter(i), n.epoch)
}

// closes: the file counts as closed with nothing in flight, and nobody holds it.
func (t *turn) closes(i int) {
	n := *t.s
	n.clean = n.holds(i)
	n.clients[i] = client{}
	t.then(n, "%c closes the file", letter(i))
}
