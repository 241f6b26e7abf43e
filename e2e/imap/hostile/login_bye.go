package hostile

func loginBye() Scenario {
	return Scenario{
		About: "The server says goodbye to a login.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				return c.is("LOGIN", "AUTHENTICATE") && s.fault(1) && s.Bye("not now")
			},
		},
	}
}
