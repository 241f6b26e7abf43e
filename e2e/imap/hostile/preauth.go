package hostile

func preauth() Scenario {
	return Scenario{
		About:   "Somebody says that we are logged in already, so that nobody thinks of STARTTLS.",
		Account: `tls: starttls`,
		Setup: func(s *Server) {
			s.Offer(nil)
			s.Fill("INBOX", 1, 6)
		},
		Script: Script{
			Greet: func(s *Session) bool {
				s.always()
				s.loggedIn = true
				s.Send("* PREAUTH welcome\r\n")
				return true
			},
		},
		Want: Want{Nothing: true, Logins: -1},
	}
}
