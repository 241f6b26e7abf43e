package hostile

func untaggedOdd() Scenario {
	return Scenario{
		About: "An untagged answer that no standard knows comes among the bodies.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID == 3 && s.fault(2) {
					s.Send("* XWHATEVER (a b) {3}\r\nabc\r\n")
				}
				return false
			},
		},
		Want: Want{Copies: 2},
	}
}
