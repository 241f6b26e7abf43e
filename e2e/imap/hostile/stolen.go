package hostile

import "fmt"

func stolen() Scenario {
	return Scenario{
		About: "News of a mail's flags come right before the mail itself, the first two times.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				s.always()
				if s.Nth(fmt.Sprintf("mail %d", m.UID)) > 2 {
					return false
				}
				s.Send("* %d FETCH (UID %d FLAGS (\\Answered))\r\n", m.Seq, m.UID)
				return false
			},
		},
	}
}
