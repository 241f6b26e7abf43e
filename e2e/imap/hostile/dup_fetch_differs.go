package hostile

func dupFetchDiffers() Scenario {
	return Scenario{
		About: "A mail comes with the bytes of another, and then as it is, twice.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 3 || !s.fault(2) {
					return false
				}
				other := m
				other.Body = []byte("Subject: not mail 3\r\n\r\n")
				return s.SendMail(c, other) && s.SendMail(c, m)
			},
		},
		Want: Want{Faults: 2, Log: "different mails for one UID"},
	}
}
