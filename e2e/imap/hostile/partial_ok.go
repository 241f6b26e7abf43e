package hostile

func partialOk() Scenario {
	return Scenario{
		About: "A FETCH is answered for every second mail only, and OK all the same.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				return m.UID%2 == 0 && s.fault(6)
			},
		},
	}
}
