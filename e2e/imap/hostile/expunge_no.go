package hostile

func expungeNo() Scenario {
	return Scenario{
		About:   "Mails can be marked as deleted, and not be expunged.",
		Account: `after: delete`,
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				switch {
				case c.is("UID EXPUNGE", "EXPUNGE"):
					s.always()
					s.No(c, "cannot expunge")
					return true
				case c.is("IDLE", "NOOP") && s.Nth("cut") <= 2:
					return s.Drop()
				}
				return false
			},
		},
	}
}
