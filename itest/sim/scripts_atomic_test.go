package sim

// halfDone: both replicas' processes die in the middle of an atomic write, and then their holder does.
func halfDone(s *stage) {
	v := s.volumes[1]
	a := s.open(v, nil)
	whole := func() { a.putWhole(0, 0, neighbours) }
	a.does(whole)
	m := s.members(v, 0)
	var steps []int
	for _, c := range m {
		steps = append(steps, -c.disk.Steps())
	}
	a.does(whole)
	for i, c := range m {
		steps[i] += c.disk.Steps()
		c.disk.KillIn(steps[i]/2+1, func() { s.net.kill(c.name, false) })
	}
	a.starts(whole)
	a.dies(true)
	for _, c := range m {
		s.kill(c, false)
		s.need(c.back())
	}
}
