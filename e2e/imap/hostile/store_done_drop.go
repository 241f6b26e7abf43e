package hostile

func storeDoneDrop() Scenario {
	return Scenario{
		About: "The first STORE is done, and the connection ends before the server says so.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "UID STORE" || !s.fault(1) {
					return false
				}
				s.Honest(&Command{Tag: "*", Name: c.Name, Args: c.Args})
				return s.Abort()
			},
		},
		Want: Want{Copies: 2},
	}
}
