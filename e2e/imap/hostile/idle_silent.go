package hostile

func idleSilent() Scenario {
	return Scenario{
		About: "In IDLE the server says nothing of new mail, and does not answer the end of it.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "IDLE" || !s.fault(1) {
					return false
				}
				s.Send("+ idling\r\n")
				s.Flush()
				s.Arrive("INBOX")
				return s.Hang()
			},
		},
		Want: Want{Mails: []uint32{1, 2, 3, 4, 5, 6, 7}, Silent: true},
	}
}
