package hostile

func hugeMailbox() Scenario {
	return Scenario{
		About: "Two million mails with UIDs from 743,000,000 on, of which 40 are unseen.",
		Setup: func(s *Server) {
			s.Fill("INBOX", 743_000_000, 2_000_000)
			s.Flag("INBOX", 0, `\Seen`)
			for i := range uint32(40) {
				s.Flag("INBOX", 743_000_000+i*50_000, "")
			}
		},
		Want: Want{Faults: -1},
	}
}
