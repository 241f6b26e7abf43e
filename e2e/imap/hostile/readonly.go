package hostile

func readonly() Scenario {
	return Scenario{
		About: "The folder is read-only, and the connection is cut now and then.",
		Setup: func(s *Server) {
			s.Fill("INBOX", 1, 6)
			s.folders[0].ReadOnly = true
		},
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				return c.is("IDLE", "NOOP") && s.fault(2) && s.Drop()
			},
		},
		Want: Want{Unmarked: true, Faults: 2},
	}
}
