package hostile

func starttlsHang() Scenario {
	return Scenario{
		About:   "The handshake after STARTTLS never comes to an end.",
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
				s.OK(c, "go ahead")
				return s.Hang()
			},
		},
		Want: Want{Nothing: true, Logins: -1, Silent: true, Faults: 2, Log: "make the connection private"},
	}
}
