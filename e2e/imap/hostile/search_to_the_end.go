package hostile

func searchToTheEnd() Scenario {
	return Scenario{
		About: "A SEARCH is answered with every UID that there can be.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "UID SEARCH" || !s.fault(1) {
					return false
				}
				if _, options := splitReturn(c.Args); options == nil {
					s.Send("* SEARCH 1 2 3 4 5 6 4294967295\r\n")
				} else {
					s.Send("* ESEARCH (TAG %q) UID ALL 1:4294967295\r\n", c.Tag)
				}
				s.OK(c, "done")
				return true
			},
		},
	}
}
