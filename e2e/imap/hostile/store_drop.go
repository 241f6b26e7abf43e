package hostile

func storeDrop() Scenario {
	return Scenario{
		About: "The connection ends instead of the first STORE.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				return c.Name == "UID STORE" && s.fault(1) && s.Drop()
			},
		},
		Want: Want{Copies: 2},
	}
}
