package hostile

import (
	"fmt"
	"strings"
)

func messagelimit() Scenario {
	return Scenario{
		About: "No more than two mails are handled in one command, and the rest is left out (RFC 9738).",
		Setup: func(s *Server) {
			s.Caps("IMAP4rev1 UIDPLUS ESEARCH IDLE MESSAGELIMIT=2")
			s.Fill("INBOX", 1, 6)
		},
		Script: Script{
			Command: func(s *Session, c *Command) bool {
				set, rest, _ := strings.Cut(c.Args, " ")
				picked, err := s.picked(set)
				if err != nil || len(picked) <= 2 || !c.is("UID FETCH", "UID STORE", "UID EXPUNGE") {
					return false
				}
				s.always()
				first := *c
				first.Args = strings.TrimSpace(formatSet(picked[:2]) + " " + rest)
				first.Tag = "*" // its answer is not the last
				s.Honest(&first)
				s.OK(c, fmt.Sprintf("[MESSAGELIMIT 2 %d] two of them", picked[2]))
				return true
			},
		},
		Want: Want{Copies: 2, Faults: -1},
	}
}
