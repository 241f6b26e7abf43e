package hostile

func dupFetchDiffers() Scenario {
	return Scenario{
		About: "A mail comes twice, the second time with the bytes of another, twice.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 3 || !s.fault(2) {
					return false
				}
				other := m
				other.Body = []byte("Subject: not mail 3\r\n\r\n")
				return s.SendMail(c, m) && s.SendMail(c, other)
			},
		},
		Want: Want{Copies: 2},
	}
}
