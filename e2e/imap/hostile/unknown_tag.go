package hostile

func unknownTag() Scenario {
	return Scenario{
		About: "A FETCH is answered OK under a tag that nobody used.",
		Script: Script{
			FetchDone: func(s *Session, c *Command) bool {
				if !s.fault(2) {
					return false
				}
				s.Send("zz9 OK done\r\n")
				return true
			},
		},
		Want: Want{Copies: 2},
	}
}
