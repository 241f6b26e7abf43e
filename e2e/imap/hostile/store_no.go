package hostile

func storeNo() Scenario {
	return Scenario{
		About: "Nothing can be marked, and the connection is cut now and then.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				switch {
				case c.Name == "UID STORE":
					s.always()
					s.No(c, "cannot store flags")
					return true
				case c.is("IDLE", "NOOP") && s.Nth("cut") <= 2:
					return s.Drop()
				}
				return false
			},
		},
		Want: Want{Unmarked: true},
	}
}
