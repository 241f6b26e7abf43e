package hostile

func nilForEver() Scenario {
	return Scenario{
		About: "The body of one mail is always NIL.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 3 {
					return false
				}
				s.always()
				s.Send("* %d FETCH (%s BODY[] NIL)\r\n", m.Seq, s.Items(c, m))
				return true
			},
		},
		Want: Want{Mails: []uint32{1, 2, 4, 5, 6}, Faults: 2, Fetches: 40},
	}
}
