package meta

import (
	"cmp"

	"pstorage/meta/fsm"
	"pstorage/meta/fsm/fsmpb"
)

// level is that of the newest commands that this server knows.
func (s *Server) level() uint64 { return cmp.Or(s.config.Level, fsm.Level) }

// prepare makes a state machine one of this server's version.
func (s *Server) prepare(m *fsm.Machine) {
	m.LeaveOut(s.config.LeftOut)
	m.Know(s.level())
}

// raise raises the cluster's level as far as all metadata servers, this one among them, know it: they have all been upgraded.
func (m *membership) raise() {
	var have, common uint64
	err := m.t.View(func(v *fsm.View) error {
		have, common = v.Level(), v.CommonLevel()
		return nil
	})
	goal := min(common, m.t.level())
	if err != nil || goal <= have {
		return
	}
	if _, err := m.t.Propose(m.alive, &fsmpb.Command{Command: &fsmpb.Command_RaiseLevel{RaiseLevel: &fsmpb.RaiseLevel{Level: goal}}}); err != nil {
		m.t.log.Warn("the level of the metadata cannot be raised", "level", goal, "error", err)
		return
	}
	m.t.log.Info("all metadata servers have the new version", "level", goal)
}
