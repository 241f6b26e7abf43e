package hostile

func stolen() Scenario {
	return Scenario{
		About: "News of a mail's flags come right before the mail itself, each time.",
		Script: Script{
			Mail: func(s *Session, _ *Command, m Mail) bool {
				s.always()
				s.Send("* %d FETCH (UID %d FLAGS (\\Answered))\r\n", m.Seq, m.UID)
				return false
			},
		},
	}
}
