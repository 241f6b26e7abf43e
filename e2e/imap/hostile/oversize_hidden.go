package hostile

import (
	"strings"
)

func oversizeHidden() Scenario {
	return Scenario{
		About: "One mail is larger than what is collected, and RFC822.SIZE says that it is small.",
		Setup: func(s *Server) {
			s.Fill("INBOX", 1, 6)
			s.Size("INBOX", 3, 300_000)
		},
		Account: `max_message_bytes: 200000`,
		Script: Script{
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
					m, _ := s.mail(uid, false)
					s.Send("* %d FETCH (UID %d FLAGS (%s) RFC822.SIZE 1000)\r\n", m.Seq, uid, m.Flags)
				}
				s.OK(c, "done")
				return true
			},
		},
		Want: Want{Mails: []uint32{1, 2, 4, 5, 6}, Faults: -1, Fetches: 60},
	}
}
