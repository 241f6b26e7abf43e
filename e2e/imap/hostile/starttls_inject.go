package hostile

func starttlsInject() Scenario {
	return Scenario{
		About:   "Somebody slips answers in behind the OK to STARTTLS, before TLS begins.",
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
				s.OK(c, "go ahead\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n* PREAUTH welcome")
				return s.Hang()
			},
		},
		Want: Want{Nothing: true, Logins: -1},
	}
}
