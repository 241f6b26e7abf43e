package hostile

func uidMissing() Scenario {
	return Scenario{
		About: "An answer to UID FETCH has no UID, twice.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				if m.UID != 3 || !s.fault(2) {
					return false
				}
				s.Send("* %d FETCH (FLAGS () BODY[] {%d}\r\n", m.Seq, len(m.Body))
				s.SendBytes(m.Body)
				s.Send(")\r\n")
				return true
			},
		},
	}
}
