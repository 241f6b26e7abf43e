package hostile

func nilBody() Scenario {
	return Scenario{
		About: "The body of a mail is NIL, twice.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 3 || !s.fault(2) {
					return false
				}
				s.Send("* %d FETCH (%s BODY[] NIL)\r\n", m.Seq, s.Items(c, m))
				return true
			},
		},
		Want: Want{Faults: 2},
	}
}
