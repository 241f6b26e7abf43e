package hostile

func searchFlood() Scenario {
	return Scenario{
		About: "A SEARCH of anything is answered with two million UIDs on one line, twice.",
		Setup: func(s *Server) {
			s.Without("ESEARCH")
			s.Fill("INBOX", 1, 6)
		},
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "UID SEARCH" || !s.fault(2) {
					return false
				}
				s.Send("* SEARCH")
				for uid := range 2_000_000 {
					s.Send(" %d", uid+1)
				}
				s.Send("\r\n")
				s.OK(c, "done")
				return true
			},
		},
	}
}
