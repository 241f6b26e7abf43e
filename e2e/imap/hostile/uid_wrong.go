package hostile

func uidWrong() Scenario {
	return Scenario{
		About: "An answer to UID FETCH has the UID of a mail that nobody asked for, twice.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 3 || !s.fault(2) {
					return false
				}
				wrong := m
				wrong.UID = 1003
				return s.SendMail(c, wrong)
			},
		},
	}
}
