package hostile

func loginUnavail() Scenario {
	return Scenario{
		About: "Logins are not possible for the moment, twice.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if !c.is("LOGIN", "AUTHENTICATE") || !s.fault(2) {
					return false
				}
				s.No(c, "[UNAVAILABLE] the directory is down")
				return true
			},
		},
		Want: Want{Log: "the directory is down"},
	}
}
