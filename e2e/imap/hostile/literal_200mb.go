package hostile

func literal200mb() Scenario {
	return Scenario{
		About: "The body of a mail that is small by RFC822.SIZE has 200 MB, each time.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 3 {
					return false
				}
				s.always()
				s.begin(c, m, "209715200")
				chunk := make([]byte, 64<<10)
				for range 209715200 / len(chunk) {
					if !s.SendBytes(chunk) {
						return true
					}
				}
				s.Send(")\r\n")
				return true
			},
		},
		Want: Want{Mails: []uint32{1, 2, 4, 5, 6}},
	}
}
