package hostile

func noIdle() Scenario {
	return Scenario{
		About: "A server without IDLE.",
		Setup: func(s *Server) {
			s.Without("IDLE")
			s.Fill("INBOX", 1, 6)
		},
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name == "UID STORE" && s.Nth("store") == 1 {
					s.Arrive("INBOX")
				}
				return false
			},
		},
		Want: Want{Mails: []uint32{1, 2, 3, 4, 5, 6, 7}, Faults: -1},
	}
}
