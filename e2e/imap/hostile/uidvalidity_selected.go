package hostile

func uidvaliditySelected() Scenario {
	return Scenario{
		About: "UIDVALIDITY changes while the folder is open: the server closes the connection, as Dovecot does.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "UID STORE" || !s.fault(1) {
					return false
				}
				s.SetUIDValidity("INBOX", 1800000000)
				return s.Bye("UIDVALIDITY changed")
			},
		},
		Want: Want{Copies: 2},
	}
}
