package hostile

func idleDrop() Scenario {
	return Scenario{
		About: "The connection ends in IDLE, and mail arrives before anybody is back.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "IDLE" || !s.fault(2) {
					return false
				}
				s.Send("+ idling\r\n")
				s.Drop()
				s.Arrive("INBOX")
				return true
			},
		},
		Want: Want{Mails: []uint32{1, 2, 3, 4, 5, 6, 7, 8}, Faults: 2},
	}
}
