package hostile

func literalGiant() Scenario {
	return Scenario{
		About: "A body of more bytes than 64 bits can count is announced.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 3 || !s.fault(2) {
					return false
				}
				s.begin(c, m, "99999999999999999999")
				s.SendBytes(m.Body)
				s.Send(")\r\n")
				return true
			},
		},
	}
}
