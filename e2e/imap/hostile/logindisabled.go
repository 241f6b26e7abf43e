package hostile

func logindisabled() Scenario {
	return Scenario{
		About: "Logins are not allowed on this connection.",
		Setup: func(s *Server) {
			s.Caps("IMAP4rev1 LOGINDISABLED")
			s.Fill("INBOX", 1, 6)
		},
		Want: Want{Nothing: true, Logins: -1, Faults: -1},
	}
}
