package hostile

func searchGiant() Scenario {
	return Scenario{
		About: "Two million unseen mails on a server without ESEARCH: a search for all of them has an answer of 16 MB.",
		Setup: func(s *Server) {
			s.Without("ESEARCH")
			s.Fill("INBOX", 1, 2_000_000)
		},
		Want: Want{AtLeast: 500, Faults: -1},
	}
}
