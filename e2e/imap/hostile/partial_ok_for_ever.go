package hostile

func partialOkForEver() Scenario {
	return Scenario{
		About: "One mail is left out of every answer, which is OK all the same.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				return m.UID == 3 && s.always()
			},
		},
		Want: Want{Mails: []uint32{1, 2, 4, 5, 6}, Faults: 2, Fetches: 40},
	}
}
