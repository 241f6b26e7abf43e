package hostile

func listFlood() Scenario {
	return Scenario{
		About: "There are 200,000 folders.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "LIST" || !s.fault(1) {
					return false
				}
				for i := range 200_000 {
					s.Send("* LIST () \"/\" \"folder %d\"\r\n", i)
				}
				s.Honest(c)
				return true
			},
		},
	}
}
