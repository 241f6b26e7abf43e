package hostile

func byeScenario() Scenario {
	return Scenario{
		About: "The server says goodbye instead of answering a FETCH.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				return c.Bodies() && s.fault(2) && s.Bye("going down")
			},
		},
		Want: Want{Log: "going down"},
	}
}
