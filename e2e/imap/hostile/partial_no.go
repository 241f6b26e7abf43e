package hostile

func partialNo() Scenario {
	return Scenario{
		About: "Some bodies come, then the FETCH is refused.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				return m.UID > 3 && s.Times("fault") < 1
			},
			FetchDone: func(s *Session, c *Command) bool {
				if !s.fault(1) {
					return false
				}
				s.No(c, "some of the mails could not be fetched")
				return true
			},
		},
		Want: Want{Copies: 2},
	}
}
