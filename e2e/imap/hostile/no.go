package hostile

func noScenario() Scenario {
	return Scenario{
		About: "A FETCH is refused, twice.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if !c.Bodies() || !s.fault(2) {
					return false
				}
				s.No(c, "[SERVERBUG] internal error")
				return true
			},
		},
	}
}
