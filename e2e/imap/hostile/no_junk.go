package hostile

func noJunk() Scenario {
	return Scenario{
		About: "There is no junk folder, nor anything that looks like one.",
		Setup: func(s *Server) {
			s.folders = s.folders[:1]
			s.Fill("INBOX", 1, 6)
		},
		Want: Want{Faults: -1},
	}
}
