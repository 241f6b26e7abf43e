package hostile

func starttlsNo() Scenario {
	return Scenario{
		About:   "STARTTLS is offered and refused.",
		Account: `tls: starttls`,
		Setup: func(s *Server) {
			s.Offer(nil)
			s.Fill("INBOX", 1, 6)
		},
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "STARTTLS" {
					return false
				}
				s.always()
				s.No(c, "not now")
				return true
			},
		},
		Want: Want{Nothing: true, Logins: -1},
	}
}
