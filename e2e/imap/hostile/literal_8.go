package hostile

func literal8() Scenario {
	return Scenario{
		About: "Bodies come as binary literals (RFC 3516).",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				s.always()
				s.Send("* %d FETCH (%s BODY[] ~{%d}\r\n", m.Seq, s.Items(c, m), len(m.Body))
				s.SendBytes(m.Body)
				s.Send(")\r\n")
				return true
			},
		},
		Want: Want{MayAlso: []uint32{1, 2, 3, 4, 5, 6}, Mails: []uint32{}},
	}
}
