package hostile

func noGreeting() Scenario {
	return Scenario{
		About: "The server accepts and says nothing.",
		Script: Script{
			Greet: func(s *Session) bool {
				return s.fault(1) && s.Hang()
			},
		},
		Want: Want{Silent: true},
	}
}
