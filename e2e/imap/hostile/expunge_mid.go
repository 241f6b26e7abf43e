package hostile

func expungeMid() Scenario {
	return Scenario{
		About: "Another client takes a mail away while it is being fetched.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 4 || !s.fault(1) {
					return false
				}
				s.Remove("INBOX", 4)
				s.Send("* %d EXPUNGE\r\n", m.Seq)
				return true
			},
		},
		Want: Want{Mails: []uint32{1, 2, 3, 5, 6}},
	}
}
