package hostile

func dateOdd() Scenario {
	return Scenario{
		About: "The date of one mail is none, each time.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 3 {
					return false
				}
				s.always()
				s.Send("* %d FETCH (UID 3 FLAGS () INTERNALDATE \"never\" RFC822.SIZE %d BODY[] {%d}\r\n", m.Seq, len(m.Body), len(m.Body))
				s.SendBytes(m.Body)
				s.Send(")\r\n")
				return true
			},
		},
		Want: Want{Mails: []uint32{1, 2, 4, 5, 6}, MayAlso: []uint32{3}, Fetches: 60},
	}
}
