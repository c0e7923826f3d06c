package iscsi

import "time"

// Times of keeping a session alive: after silence the initiator is asked for a sign of life, and given up if it sends
// none.
const (
	pingAfter  = 30 * time.Second
	giveUpTime = 60 * time.Second
	tickTime   = 10 * time.Second
	// dataTime is how long an initiator may take to send data it announced.
	dataTime = 60 * time.Second
)

// keepAlive looks after the session from time to time, until stopKeepAlive.
func (s *session) keepAlive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ticking = true
	s.ticker = time.AfterFunc(tickTime, s.tickAgain)
}

func (s *session) stopKeepAlive() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ticking = false
	s.ticker.Stop()
}

func (s *session) tickAgain() {
	s.tick()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ticking {
		s.ticker.Reset(tickTime)
	}
}

func (s *session) tick() {
	now := s.now()
	silent := now.Sub(time.Unix(0, s.heard.Load()))
	switch {
	case silent >= giveUpTime:
		s.log.Warn("session given up", "err", errSilent, "silent", silent)
		s.kill()
	case s.stalled(now):
		s.log.Warn("session given up", "err", errStalled)
		s.kill()
	case silent >= pingAfter:
		s.ping()
	}
}

// stalled reports whether a task has waited too long for data that the initiator owes.
func (s *session) stalled(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range s.tasks {
		if t.state.Load() == taskReceiving && now.UnixNano()-t.lastData.Load() > int64(dataTime) && !t.want {
			return true
		}
	}
	return false
}

// ping sends a NOP-In that wants an answer.
func (s *session) ping() {
	s.mu.Lock()
	c := s.control(opNopIn)
	c.counts = false
	h := c.head()
	h.put(16, reservedTag)
	h.put(20, pingTag)
	s.send(c)
	s.mu.Unlock()
	s.flush()
}

// pingTag is the target transfer tag of our pings.
const pingTag = 0x70696e67
