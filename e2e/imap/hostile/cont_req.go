package hostile

func contReq() Scenario {
	return Scenario{
		About: "The server asks for more where nothing is owed.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID == 3 && s.fault(2) {
					s.Send("+ go on\r\n")
				}
				return false
			},
		},
		Want: Want{Copies: 2},
	}
}
