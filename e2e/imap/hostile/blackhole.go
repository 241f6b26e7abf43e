package hostile

func blackhole() Scenario {
	return Scenario{
		About: "A FETCH is never answered.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				return c.Bodies() && s.fault(1) && s.Hang()
			},
		},
		Want: Want{Silent: true},
	}
}
