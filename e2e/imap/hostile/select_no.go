package hostile

func selectNo() Scenario {
	return Scenario{
		About: "A folder cannot be opened, twice.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "SELECT" || !s.fault(2) {
					return false
				}
				s.No(c, "[INUSE] locked")
				return true
			},
		},
	}
}
