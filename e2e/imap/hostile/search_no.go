package hostile

func searchNo() Scenario {
	return Scenario{
		About: "A SEARCH is refused, twice.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "UID SEARCH" || !s.fault(2) {
					return false
				}
				s.No(c, "[SERVERBUG] try again")
				return true
			},
		},
	}
}
