package hostile

func literalNegative() Scenario {
	return Scenario{
		About: "A body of less than no bytes is announced.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 3 || !s.fault(2) {
					return false
				}
				s.begin(c, m, "-5")
				s.SendBytes(m.Body)
				s.Send(")\r\n")
				return true
			},
		},
	}
}
