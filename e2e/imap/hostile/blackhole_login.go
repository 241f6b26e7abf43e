package hostile

func blackholeLogin() Scenario {
	return Scenario{
		About: "A login is never answered.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				return c.is("LOGIN", "AUTHENTICATE") && s.fault(1) && s.Hang()
			},
		},
		Want: Want{Silent: true},
	}
}
