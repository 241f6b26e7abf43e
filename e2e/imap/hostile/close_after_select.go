package hostile

func closeAfterSelect() Scenario {
	return Scenario{
		About: "The connection ends right after SELECT.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "SELECT" || !s.fault(2) {
					return false
				}
				s.Honest(c)
				return s.Drop()
			},
		},
	}
}
