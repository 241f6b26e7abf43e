package hostile

func listLiteral() Scenario {
	return Scenario{
		About: "The name of a folder is a literal of 200 MB.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "LIST" || !s.fault(2) {
					return false
				}
				s.Send("* LIST () \"/\" {209715200}\r\n")
				chunk := make([]byte, 64<<10)
				for range 209715200 / len(chunk) {
					if !s.SendBytes(chunk) {
						return true
					}
				}
				s.Send("\r\n")
				s.OK(c, "done")
				return true
			},
		},
	}
}
