package hostile

func loginFail() Scenario {
	return Scenario{
		About: "The password is refused.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if !c.is("LOGIN", "AUTHENTICATE") {
					return false
				}
				s.always()
				s.No(c, "[AUTHENTICATIONFAILED] wrong user or password")
				return true
			},
		},
		Want: Want{Nothing: true, Logins: 1, Log: "AUTHENTICATIONFAILED"},
	}
}
