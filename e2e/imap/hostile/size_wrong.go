package hostile

import (
	"strings"
)

func sizeWrong() Scenario {
	return Scenario{
		About: "RFC822.SIZE is three times too large, or three times too small.",
		Script: Script{
			Mail: func(s *Session, c *Command, m Mail) bool {
				s.always()
				size := len(m.Body) * 3
				if m.UID%2 == 0 {
					size = len(m.Body) / 3
				}
				s.Send("* %d FETCH (UID %d FLAGS () INTERNALDATE %q RFC822.SIZE %d BODY[] {%d}\r\n", m.Seq, m.UID, internalDate, size, len(m.Body))
				s.SendBytes(m.Body)
				s.Send(")\r\n")
				return true
			},
			Command: func(s *Session, c *Command) bool {
				if c.Name != "UID FETCH" || c.Bodies() || !strings.Contains(strings.ToUpper(c.Args), "RFC822.SIZE") {
					return false
				}
				set, _, _ := strings.Cut(c.Args, " ")
				picked, err := s.picked(set)
				if err != nil {
					return false
				}
				for _, uid := range picked {
					m, _ := s.mail(uid, true)
					size := len(m.Body) * 3
					if uid%2 == 0 {
						size = len(m.Body) / 3
					}
					s.Send("* %d FETCH (UID %d FLAGS (%s) RFC822.SIZE %d)\r\n", m.Seq, uid, m.Flags, size)
				}
				s.OK(c, "done")
				return true
			},
		},
	}
}
