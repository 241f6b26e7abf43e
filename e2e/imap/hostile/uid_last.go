package hostile

func uidLast() Scenario {
	return Scenario{
		About: "The UID comes behind the body, which is legal.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				s.always()
				s.Send("* %d FETCH (FLAGS (%s) BODY[] {%d}\r\n", m.Seq, m.Flags, len(m.Body))
				s.SendBytes(m.Body)
				s.Send(" UID %d)\r\n", m.UID)
				return true
			},
		},
	}
}
