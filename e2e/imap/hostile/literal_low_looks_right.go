package hostile

func literalLowLooksRight() Scenario {
	return Scenario{
		About: "A body is longer than announced, and what is too much looks like the end of the answer.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 3 || !s.fault(1) {
					return false
				}
				s.begin(c, m, "40")
				s.SendBytes(m.Body[:40])
				s.Send(")\r\n")
				s.SendBytes(m.Body[40:])
				s.Send(")\r\n")
				return true
			},
		},
	}
}
