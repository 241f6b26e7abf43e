package hostile

func badScenario() Scenario {
	return Scenario{
		About: "A FETCH is called wrong, twice.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if !c.Bodies() || !s.fault(2) {
					return false
				}
				s.Bad(c, "cannot parse")
				return true
			},
		},
	}
}
