package hostile

func idleDeaf() Scenario {
	return Scenario{
		About: "In IDLE the server says nothing of new mail.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "IDLE" || !s.fault(1) {
					return false
				}
				s.Send("+ idling\r\n")
				s.Flush()
				s.Arrive("INBOX")
				line, err := s.read.ReadString('\n')
				if err == nil {
					s.remember("- " + line)
					s.OK(c, "done")
				}
				return true
			},
		},
		Want: Want{Mails: []uint32{1, 2, 3, 4, 5, 6, 7}},
	}
}
