package hostile

func greetBye() Scenario {
	return Scenario{
		About: "The greeting is a goodbye, twice.",
		Script: Script{
			Greet: func(s *Session) bool {
				return s.fault(2) && s.Bye("too many connections")
			},
		},
		Want: Want{Log: "too many connections"},
	}
}
