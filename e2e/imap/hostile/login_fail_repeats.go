package hostile

func loginFailRepeats() Scenario {
	return Scenario{
		About: "The password is refused, in words that repeat it.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if !c.is("LOGIN", "AUTHENTICATE") {
					return false
				}
				s.always()
				s.No(c, "[AUTHENTICATIONFAILED] not "+s.Password)
				return true
			},
		},
		Want: Want{Nothing: true, Logins: 1},
	}
}
