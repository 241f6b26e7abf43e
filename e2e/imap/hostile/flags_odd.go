package hostile

func flagsOdd() Scenario {
	return Scenario{
		About: "The flags of one mail are what no grammar allows, each time.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 3 {
					return false
				}
				s.always()
				m.Flags = `a]b "c" (`
				return !s.SendMail(c, m) || true
			},
		},
		Want: Want{Mails: []uint32{1, 2, 4, 5, 6}, MayAlso: []uint32{3}, Fetches: 60},
	}
}
