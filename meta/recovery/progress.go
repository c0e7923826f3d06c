package recovery

import (
	"sync"
	"time"
)

// meterSpan is the time over which speed is measured, in seconds.
const meterSpan = 10

// meter measures what was moved lately.
type meter struct {
	mu       sync.Mutex
	began    time.Time
	seconds  [meterSpan]second
	bytes    uint64 // in all
	replicas uint64
}

// second is what was moved in one second, counted since the meter began.
type second struct {
	number   int64
	bytes    uint64
	replicas uint64
}

func (m *meter) add(bytes, replicas uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := int64(time.Since(m.began) / time.Second)
	s := &m.seconds[now%meterSpan]
	if s.number != now {
		*s = second{number: now}
	}
	s.bytes += bytes
	s.replicas += replicas
	m.bytes += bytes
	m.replicas += replicas
}

// pace is bytes and replicas per second, lately.
func (m *meter) pace() (bytes, replicas float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := int64(time.Since(m.began) / time.Second)
	for _, s := range m.seconds {
		if now-s.number < meterSpan {
			bytes += float64(s.bytes)
			replicas += float64(s.replicas)
		}
	}
	span := float64(min(now+1, meterSpan))
	return bytes / span, replicas / span
}

// Progress is what recovery is about.
type Progress struct {
	Rebuilding, Moving       int     // chunks under way, for the sake of missing replicas and for other reasons
	BytesPerSecond           uint64  // lately
	ReplicasPerSecond        float64 // lately
	MovedBytes, MadeReplicas uint64  // since this leader leads
	Stopped                  bool    // too many servers are offline
}

// Progress tells how it stands.
func (e *Engine) Progress() Progress {
	bytes, replicas := e.meter.pace()
	e.meter.mu.Lock()
	p := Progress{BytesPerSecond: uint64(bytes), ReplicasPerSecond: replicas, MovedBytes: e.meter.bytes, MadeReplicas: e.meter.replicas}
	e.meter.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	p.Moving, p.Stopped = e.moving(), e.stopped
	p.Rebuilding = len(e.active) - p.Moving
	return p
}
