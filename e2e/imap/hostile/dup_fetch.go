package hostile

func dupFetch() Scenario {
	return Scenario{
		About: "Each mail comes twice.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				s.always()
				if !s.SendMail(c, m) {
					return false
				}
				return s.SendMail(c, m)
			},
		},
	}
}
