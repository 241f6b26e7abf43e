package hostile

func idleNo() Scenario {
	return Scenario{
		About: "IDLE is offered and refused.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "IDLE" {
					return false
				}
				if s.always() && s.Times("fault") == 1 {
					s.Arrive("INBOX")
				}
				s.No(c, "not today")
				return true
			},
		},
		Want: Want{Mails: []uint32{1, 2, 3, 4, 5, 6, 7}},
	}
}
