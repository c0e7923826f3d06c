package wire

// job is a request with a worker: a copy of it, then its reply, until that has left.
type job struct {
	sc      *serverConn
	req     request
	payload []byte
	w       work
	held    int
	sole    bool // the connection had no other when it was made
}

// delegate leaves a request to a worker, or does it here if that is asked for and no worker has another of the connection. Where the
// connection has as many as it may have, it waits, and so reads no more.
func (sc *serverConn) delegate(r *request, payload []byte, here bool) error {
	need := len(payload) + replySpace(r)
	j, ok := sc.newJob(need, false)
	if !ok {
		if err := sc.send(); err != nil { // the client may wait for these
			return err
		}
		if j, ok = sc.newJob(need, true); !ok {
			return errOver
		}
	}
	j.req = *r
	j.payload = append(roomFor(j.payload, len(payload)), payload...)
	j.w.out = roomFor(j.w.out, replySpace(r))
	if here && j.sole {
		return sc.here(j)
	}
	sc.srv.hand(j)
	return nil
}

// newJob takes a place for a job that needs so many bytes.
func (sc *serverConn) newJob(need int, wait bool) (*job, bool) {
	sc.mu.Lock()
	defer sc.mu.Unlock()
	for sc.jobs >= maxJobs || sc.held > 0 && sc.held+need > maxHeld {
		if !wait || sc.ended.Load() {
			return nil, false
		}
		sc.less.Wait()
	}
	sc.jobs++
	sc.held += need
	var j *job
	if n := len(sc.free); n > 0 {
		j, sc.free = sc.free[n-1], sc.free[:n-1]
	} else {
		j = &job{sc: sc}
	}
	j.held, j.sole = need, sc.jobs == 1
	return j, true
}

// run executes the job on a worker and sends its reply.
func (j *job) run() {
	if j.sc.ended.Load() {
		j.finish()
		return
	}
	j.w.execute(j.sc, &j.req, j.payload, false, true)
	j.finish()
}

// finish says that nothing of the job is being applied any more, and sends its reply if there is one: in this order, so that a client that
// waits for the reply before its next request has one job at most.
func (j *job) finish() {
	sc := j.sc
	sc.delist()
	o := sc.out
	o.mu.Lock()
	queued := len(j.w.out) > 0 && !o.dead
	if queued {
		o.push(j.w.out, j)
	}
	o.flushUnlock()
	if !queued {
		j.left()
	}
}

// left gives the job's memory back: its reply has left, or never will.
func (j *job) left() {
	sc := j.sc
	j.w.out, j.payload = kept(j.w.out), kept(j.payload)
	sc.mu.Lock()
	sc.held -= j.held
	if len(sc.free) < maxJobs {
		sc.free = append(sc.free, j)
	}
	sc.less.Broadcast()
	sc.mu.Unlock()
}
