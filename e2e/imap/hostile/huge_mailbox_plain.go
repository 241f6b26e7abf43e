package hostile

func hugeMailboxPlain() Scenario {
	return Scenario{
		About: "Two million mails, of which 40 are unseen, on a server without ESEARCH.",
		Setup: func(s *Server) {
			s.Without("ESEARCH")
			s.Fill("INBOX", 1, 2_000_000)
			s.Flag("INBOX", 0, `\Seen`)
			for i := range uint32(40) {
				s.Flag("INBOX", 1+i*50_000, "")
			}
		},
		Want: Want{Faults: -1},
	}
}
