package hostile

func idNo() Scenario {
	return Scenario{
		About: "The server does not want to know who we are.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "ID" {
					return false
				}
				s.always()
				s.Bad(c, "who asked?")
				return true
			},
		},
	}
}
