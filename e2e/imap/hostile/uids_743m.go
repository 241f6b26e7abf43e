package hostile

func uids743m() Scenario {
	return Scenario{
		About: "UIDs begin near 743,000,000, with wide gaps.",
		Setup: func(s *Server) {
			for i := range uint32(6) {
				s.Fill("INBOX", 743_000_000+i*1_000_000, 1)
			}
		},
		Want: Want{Faults: -1, Fetches: 30},
	}
}
