package hostile

func uidvalidityFlip() Scenario {
	return Scenario{
		About: "Each connection finds another UIDVALIDITY, with other mails behind the same UIDs, and the first ones end before anything can be marked.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				switch {
				case c.Name == "SELECT" && s.Nth("select") <= 6:
					s.SetUIDValidity("INBOX", uint32(1800000000+s.Number))
				case c.Name == "UID STORE" && s.fault(2):
					return s.Drop()
				}
				return false
			},
		},
		Want: Want{Copies: 2},
	}
}
