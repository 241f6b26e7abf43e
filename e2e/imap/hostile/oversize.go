package hostile

func oversize() Scenario {
	return Scenario{
		About: "One mail is larger than what is collected, and says so.",
		Setup: func(s *Server) {
			s.Fill("INBOX", 1, 6)
			s.Size("INBOX", 3, 300_000)
		},
		Account: `max_message_bytes: 200000`,
		Want:    Want{Mails: []uint32{1, 2, 4, 5, 6}, Faults: -1, Fetches: 40},
	}
}
