package hostile

func dupFetch() Scenario {
	return Scenario{
		About: "Each mail comes twice.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				s.always()
				return s.SendMail(c, m) && s.SendMail(c, m)
			},
		},
	}
}
