package sim

import "time"

// Fault is a kind of fault.
type Fault int

// breakThings has faults happen until the time is over.
func (s *Sim) breakThings() {
	time.Sleep(s.options.Time)
}

// heal ends all faults.
func (s *Sim) heal() {}

// mayFail tells whether requests may fail.
func (s *Sim) mayFail() bool { return false }

func (s *Sim) opened(*volume) {}
