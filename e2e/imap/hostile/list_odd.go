package hostile

func listOdd() Scenario {
	return Scenario{
		About: "Folders have names that are no UTF-7, and none.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				if c.Name != "LIST" || !s.fault(1) {
					return false
				}
				s.Send("* LIST () \"/\" \"&bad\"\r\n* LIST () NIL \"\"\r\n* LIST (\\Noselect) \"/\" \"R&-D\"\r\n")
				s.Honest(c)
				return true
			},
		},
	}
}
