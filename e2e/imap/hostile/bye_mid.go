package hostile

func byeMid() Scenario {
	return Scenario{
		About: "The server says goodbye between two bodies.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				return m.UID == 4 && s.fault(2) && s.Bye("going down")
			},
		},
	}
}
