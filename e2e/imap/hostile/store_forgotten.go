package hostile

func storeForgotten() Scenario {
	return Scenario{
		About: "STORE is answered OK and does nothing, and the connection is cut now and then.",
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				switch {
				case c.Name == "UID STORE":
					s.always()
					s.OK(c, "done")
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
