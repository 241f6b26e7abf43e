package hostile

func loginLock() Scenario {
	return Scenario{
		About: "The account is locked.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if !c.is("LOGIN", "AUTHENTICATE") {
					return false
				}
				s.always()
				s.No(c, "[CONTACTADMIN] account locked after too many failures")
				return true
			},
		},
		Want: Want{Nothing: true, Logins: 1, Log: "account locked"},
	}
}
