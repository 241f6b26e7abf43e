package hostile

func emptyBody() Scenario {
	return Scenario{
		About: "One mail has no bytes at all, which is a mail like any other.",
		Setup: func(s *Server) {
			s.Fill("INBOX", 1, 6)
			s.Size("INBOX", 3, -1)
		},
		Want: Want{Faults: -1},
	}
}
