package hostile

func existsLies() Scenario {
	return Scenario{
		About: "The server says that there are more mails than there are.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "SELECT" {
					return false
				}
				s.Honest(c)
				s.always()
				s.Send("* 4000000000 EXISTS\r\n")
				return true
			},
		},
	}
}
